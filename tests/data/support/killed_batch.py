"""A batch of `generate`, killed before each change that it makes on the disk and run again. Prints what happened as JSON.

    python killed_batch.py FOLDER BACKBONE POINTS

FOLDER holds jobs.csv and what it names; POINTS of the changes are tried, spread evenly, all of them for 0.
Processes are forked, so that libraries are imported once.
"""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from apart import KilledBefore, apart

from fedtalk.data.provenance import read_provenance
from fedtalk.talker.production.files import Order, make_batch


def main() -> None:
    folder, backbone = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    order = Order(backbone=backbone, steps=1, stride=8, scale=1, device="cpu")
    with (folder / "jobs.csv").open(newline="") as stream:
        outs = [folder / row["out"] for row in csv.DictReader(stream)]

    def work(change: int) -> Callable[[], None]:
        def run() -> None:
            killer = KilledBefore(change, "os.rename", "os.remove")
            outcome = make_batch(folder / "jobs.csv", order)
            (folder / "told.json").write_text(json.dumps([killer.count, outcome.made, outcome.there]))

        return run

    def there() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in outs if path.exists()}

    assert apart(work(-1)) == 0
    changes = json.loads((folder / "told.json").read_text())[0]
    problems = []
    points = int(sys.argv[3])
    step = max(1, changes // points) if points else 1
    for change in range(step // 2, changes, step):
        for path in outs:
            path.unlink(missing_ok=True)
        if apart(work(change)) != signal.SIGKILL:
            problems.append(f"{change}: not killed")
        before = there()
        if any(read_provenance(folder / name).state != "Valid" for name in before):
            problems.append(f"{change}: half made")
        assert apart(work(-1)) == 0
        _, made, kept = json.loads((folder / "told.json").read_text())
        if (made, kept) != (len(outs) - len(before), len(before)):
            problems.append(f"{change}: {len(before)} were there, {kept} kept, {made} made")
        after = there()
        if len(after) != len(outs) or any(after[name] != time for name, time in before.items()):
            problems.append(f"{change}: {before} became {after}")
        left = [path.name for path in folder.iterdir() if path.name.startswith(".part-")]
        if left:
            problems.append(f"{change}: left {left}")
    print(json.dumps({"changes": changes, "problems": problems}))


if __name__ == "__main__":
    main()
