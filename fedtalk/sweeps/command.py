"""The command line of `fedtalk sweep`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fedtalk.errors import FedTalkError
from fedtalk.sweeps.sweep import print_summary, run_sweep

DESCRIPTION = """\
Run an experiment with several seeds and variations, and say what differs by more than chance.

Each run is `fedtalk fit` and `fedtalk test` in a folder of its own below FOLDER/runs. A run that is finished is kept by the hash
of its config, seed, threads and code: the same command goes on where it was stopped, and runs only what changed. Clips or a
backbone that a config names by path are not looked into: give another --folder when those change. FOLDER gets sweep.json,
sweep.csv and TensorBoard's hparams (unfinished.json while runs are missing); `fedtalk report FOLDER` makes a page of any of it.

Means have Student's 95 % interval over seeds; variations are compared with the first one seed by seed, by the paired t test,
uncorrected: of twenty differences that are none, one is starred by chance.

  fedtalk sweep --config configs/isfa.yaml --seeds 0-4 --vary model.adapter.rank=2,8
  fedtalk sweep --config configs/isfa.yaml --seeds 0-4 --vary config=base,configs/fedavg.yaml
"""


def parser() -> argparse.ArgumentParser:
    """Of the options."""
    options = argparse.ArgumentParser(
        "fedtalk sweep",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument(
        "--config", action="append", required=True, metavar="FILE", help="config of `fedtalk fit`; several stack"
    )
    options.add_argument("--seeds", default="0-4", help="such as 0-4 or 0,3,7-9 (default: %(default)s)")
    options.add_argument(
        "--vary", action="append", default=[], metavar="KEY=A,B",
        help="values of any config key; the key `config` takes overlays (a.yaml+b.yaml for two of them, base for none); "
        "all combinations are run, and compared with the first",
    )  # fmt: skip
    options.add_argument("--folder", type=Path, default=Path("runs/sweep"), help="of the sweep (default: %(default)s)")
    options.add_argument(
        "--jobs", type=int, help="runs at a time; one a GPU, or as many as the cores allow, by default"
    )
    options.add_argument(
        "--threads", type=int, default=1, help="CPU threads of each run; bits depend on it (default: %(default)s)"
    )
    options.add_argument("--ray", action="store_true", help="on the nodes of the Ray cluster that RAY_ADDRESS names")
    options.add_argument(
        "--measures", nargs="+", default=[], metavar="ROW.MEASURE", help="of the printed table, such as personal.psnr"
    )
    options.add_argument("--json", action="store_true", help="print sweep.json on one line in place of the table")
    return options


def sweep(arguments: Sequence[str]) -> None:
    """Run a sweep as the command line says.

    Raises:
        FedTalkError: wrong options or configs, before anything runs; or some of the runs failed, after all others were run.
    """
    options = parser().parse_args(list(arguments))
    folder = options.folder.expanduser()
    summary = run_sweep(options.config, options.seeds, options.vary, folder, options.jobs, options.threads, options.ray)
    if options.json:
        print(json.dumps(summary))
    else:
        measured = {name for entry in summary["variations"].values() for name in entry["measures"]}
        if unknown := [name for name in options.measures if name not in measured]:
            print(
                f"fedtalk sweep: no run has the measure {', '.join(unknown)}; there are {', '.join(sorted(measured))}",
                file=sys.stderr,
            )
        print_summary(summary, options.measures)
        print(f"{folder}/sweep.json, sweep.csv and tensorboard/ have all of it; a page: fedtalk report {folder}")
    if failed := len(summary["failed"]):
        raise FedTalkError(
            f"{failed} of {failed + len(summary['runs'])} runs failed; {folder}/runs/*/log.txt say why, and the same "
            "command runs them again"
        )
