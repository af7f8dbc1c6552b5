"""Compare `fedtalk fit --dry_run` with the run that it is about.

    python scripts/check_estimate.py --json

A tiny run (random backbone at 32 px, SynthTalk, ISFA, personal adapters, an empty cache, one thread) is estimated and then
run; ``ratio`` is estimated over measured seconds, to be within 0.8 and 1.2 on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import torch
from tiny_run import write_backbone

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.callbacks.personal import PersonalTraining
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining


def main() -> None:
    """Estimate, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="fedtalk-estimate-") as name:
        place = Path(name)
        write_backbone(place / "backbone")

        def build(folder: str) -> tuple[FederatedTrainer, Talker, SynthTalkData]:
            trainer = FederatedTrainer(
                rounds=options.rounds, cohort=PoissonCohort(0.7), local=LocalTraining(steps=options.steps, batch_size=4),
                validate_every=2, aggregation=ISFA(gamma=1.0), switch_off=["videos"],
                personal=PersonalTraining(steps=options.steps), accelerator="cpu", threads=1,
                default_root_dir=str(place / folder), cache_dir=str(place / f"{folder}-cache"),
            )  # fmt: skip
            talker = Talker(str(place / "backbone"), adapter=Adapter(rank=4), window=8)
            return trainer, talker, SynthTalkData(speakers=options.clients, clips=2, held_out=1, frames=24, size=32)

        trainer, talker, data = build("estimated")
        found = trainer.estimate(talker, data)
        trainer, talker, data = build("run")
        started = time.perf_counter()
        trainer.fit(talker, data)
        measured = time.perf_counter() - started
    summary = {
        "estimated_s": round(found.seconds(), 2), "measured_s": round(measured, 2),
        "ratio": round(found.seconds() / measured, 3),
        **{name.replace(" ", "_") + "_s": round(seconds, 2) for name, seconds in found.parts().items()},
    }  # fmt: skip
    print(json.dumps(summary) if options.json else "\n".join(f"{key:>20}  {value}" for key, value in summary.items()))


if __name__ == "__main__":
    main()
