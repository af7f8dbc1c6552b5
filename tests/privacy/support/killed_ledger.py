"""A ledger's process, killed (SIGKILL) before each file that it opens, renames or removes. Prints what was found as JSON.

    python killed_ledger.py FOLDER

Each process goes on in folder A, of which B is a copy, and writes down every round that it would release, once its charge is on
the disk. Processes are forked, so that libraries are imported once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from apart import KilledBefore, apart

from fedtalk.federation.cohort import PoissonCohort
from fedtalk.privacy.ledger import Ledger
from fedtalk.privacy.ledger_record import read_record

ROUNDS = 2


def ledger() -> Ledger:
    return Ledger(PoissonCohort(0.5), ["anna", "ben", "cleo"], 1.5, 1e-3, accountant="rdp")


def goes_on(home: Path, log: Path, before: int) -> None:
    """Two more rounds in ``home``; dies before the event of that number, if there are so many."""
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    KilledBefore(before, "open", "os.rename", "os.remove", "os.mkdir")
    mine = ledger()
    mine.recall(home)
    for _ in range(ROUNDS):
        mine.charge(["anna"])
        mine.write(home)
        os.write(written, b".")  # from here on the round's sum may be opened


def main(root: Path) -> None:
    a, b, log = root / "a", root / "b", root / "released"
    first = ledger()
    first.charge(["anna"])
    first.write(a)
    log.write_bytes(b".")
    shutil.copytree(a, b)
    second = ledger()
    second.recall(b)
    second.charge(["anna"])
    second.write(b)  # now each names the other
    log.write_bytes(b"..")
    found = []
    killed = True
    while killed:
        killed = apart(lambda: goes_on(a, log, len(found))) == signal.SIGKILL
        records = [read_record(folder) for folder in (a, b)]
        charged = [None if record is None else record.charges.times_drawn("anna") for record in records]
        found.append({"killed": killed, "released": log.stat().st_size, "charged": charged})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
