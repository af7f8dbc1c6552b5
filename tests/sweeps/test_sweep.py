"""A real sweep of tiny runs: resumed, repeated to the bit, with a failure that costs nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fedtalk.cli import main
from fedtalk.errors import ConfigurationError
from fedtalk.interruption import Interrupted
from fedtalk.sweeps import processes, sweep
from fedtalk.sweeps.environment import run_environment
from fedtalk.sweeps.execution import RESULT, Finished, Sweep, SweepOutcome, last_line
from fedtalk.sweeps.plan import PlannedRun, Variation
from fedtalk.sweeps.summary import summarise, write
from fedtalk.sweeps.sweep import OnChange

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A config of `scripts/tiny_run.py`, small enough to be measured too."""
    folder = tmp_path_factory.mktemp("tiny")
    sys.path.insert(0, str(SCRIPTS))
    try:
        import tiny_run

        tiny_run.write_backbone(folder / "backbone")
        tiny_run.write_config(folder / "run.yaml", folder / "backbone", rounds=1)
    finally:
        sys.path.remove(str(SCRIPTS))
    (folder / "less.yaml").write_text(
        f"trainer: {{cache_dir: {folder / 'cache'}, evaluation: {{clients: 2, clips: 1, portrait: false, videos: 1}}}}\n"
    )
    yield folder


def _sweep(config: Path, folder: Path, *more: str) -> int:
    return main([
        "sweep", "--config", str(config / "run.yaml"), "--config", str(config / "less.yaml"), "--folder", str(folder), "--jobs",
        "1", "--json", *more,
    ])  # fmt: skip


def _adapters(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("adapter_model.safetensors"))}


def test_a_sweep_keeps_what_is_done(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tmp_path / "one"
    command = Sweep._command

    def without_a_backbone(self: Sweep, run: PlannedRun, folder: Path) -> list[str]:
        """As a run ends that doesn't find the backbone of the second variation, without the imports."""
        if run.variation.name.endswith("nowhere"):
            return [sys.executable, "-c", "import sys; sys.exit('fedtalk fit: backbone nowhere')"]
        return command(self, run, folder)

    monkeypatch.setattr(Sweep, "_command", without_a_backbone)
    assert _sweep(config, one, "--seeds", "3", "--vary", f"model.backbone={config}/backbone,nowhere") == 1
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert "1 of 2 runs failed" in captured.err
    (run,), (failed,) = summary["runs"], summary["failed"]
    assert failed["variation"] == "model.backbone=nowhere" and "nowhere" in failed["reason"]
    assert run["measures"]["trained.psnr"] > 0 and run["measures"]["truth.psnr"] == 100
    place = one / "runs" / run["folder"]
    assert "seed_everything: 3" in (place / "config.yaml").read_text()
    events = EventAccumulator(str(one / "tensorboard" / run["folder"]))
    events.Reload()
    assert "sweep/trained.psnr" in events.Tags()["scalars"] and "_hparams_/experiment" in events.PluginTagToContent(
        "hparams"
    )
    assert (one / "sweep.csv").read_text().count("\n") == 1 + len(run["measures"])

    written = (place / RESULT).stat().st_mtime_ns
    assert _sweep(config, one, "--seeds", "3", "--vary", f"model.backbone={config}/backbone") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["about"]["kept"] == 1 and (place / RESULT).stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_sweep_repeats_to_the_bit_forked_or_not(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("forked", "new processes"):
        if found:
            monkeypatch.setattr(processes, "_prepared_for", {"OMP_NUM_THREADS": "of another sweep"})
        assert _sweep(config, tmp_path / name, "--seeds", "3") == 0
        (run,) = json.loads(capsys.readouterr().out)["runs"]
        found.append((run["measures"], _adapters(tmp_path / name / "runs" / run["folder"])))
    assert found[0] == found[1] and found[0][1]


def test_what_fit_would_refuse_is_refused_before_anything_runs(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _sweep(config, tmp_path, "--seeds", "0", "--vary", "trainer.ruonds=1,2") == 1
    assert "ruonds" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_sweep_of_failures_alone_is_an_error_that_shows_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no such config\\n')"]
    monkeypatch.setattr(Sweep, "_command", lambda self, run, folder: failing)
    runs = [PlannedRun(Variation("x", ("--nonsense=1",)), 0, "k" * 64)]
    outcome = Sweep(tmp_path, ["nowhere.yaml"], jobs=1).execute(runs, lambda outcome, started: None)
    (failed,) = outcome.failed
    assert (
        not outcome.finished
        and failed.reason == "no such config"
        and last_line(failed.folder / "log.txt") == failed.reason
    )


def test_a_run_is_a_fork_in_a_session_of_its_own_that_says_how_it_ended(tmp_path: Path) -> None:
    processes.prepare(run_environment(1))
    command = [sys.executable, "-m", processes.SINGLE, "--nonsense=1"]
    run = processes.start(command, tmp_path / "log", run_environment(1) | {"OF_THE_RUN": "yes"})
    assert not isinstance(run, subprocess.Popen)
    assert run.wait() == run.poll() == 2  # as argparse ends
    assert "nonsense" in (tmp_path / "log").read_text()
    assert isinstance(processes.start(command, tmp_path / "log", run_environment(2)), subprocess.Popen)


def test_a_signal_stops_the_runs_and_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    script = "import time, pathlib, os; pathlib.Path('{}').write_text(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(
        Sweep, "_command", lambda self, run, folder: [sys.executable, "-c", script.format(folder / "pid")]
    )
    runs = [PlannedRun(Variation(name, ()), 0, name * 64) for name in "ab"]
    both = Sweep(tmp_path, [], jobs=2)

    def stop_once_both_run(outcome: SweepOutcome, started: list[str]) -> None:
        if len(list(tmp_path.glob("runs/*/pid"))) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        both.execute(runs, stop_once_both_run)
    for path in tmp_path.glob("runs/*/pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_variations_are_compared_with_the_first_by_seed() -> None:
    variations = [Variation("a", ()), Variation("b", ("--x=2",))]
    runs = [PlannedRun(variation, seed, f"{variation.name}{seed}") for variation in variations for seed in range(3)]
    values = {"a": [1.0, 2.0, 3.0], "b": [1.5, 2.6, 3.4]}
    outcome = SweepOutcome(
        [Finished(r, {"trained.psnr": values[r.variation.name][r.seed]}, 1.0, Path("f")) for r in runs]
    )
    summary = summarise(runs, outcome, {})
    row = summary["variations"]["b"]["measures"]["trained.psnr"]
    assert row["against_first"]["mean"] == pytest.approx(0.5) and row["against_first"]["excludes_zero"]
    assert "against_first" not in summary["variations"]["a"]["measures"]["trained.psnr"]
    assert [run["seed"] for run in summary["runs"]] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "import os, signal; print('round 3', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
            "killed by SIGKILL.*round 3",
        ),
        (
            "import pathlib, sys; pathlib.Path(sys.argv[1], 'metrics.json').write_text('{')",
            "what it left can't be read",
        ),
        ("pass", "metrics.json"),
        ("import sys; sys.exit(3)", "ended with 3"),
    ],
)
def test_however_a_run_ends_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    well = "import pathlib, sys; pathlib.Path(sys.argv[1], 'metrics.json').write_text('{\"trained\": {\"psnr\": 1}}')"
    monkeypatch.setattr(
        Sweep,
        "_command",
        lambda self, run, folder: [sys.executable, "-c", script if run.seed == 0 else well, str(folder)],
    )
    runs = [PlannedRun(Variation("x", ()), seed, str(seed) * 64) for seed in (0, 1)]
    outcome = Sweep(tmp_path, [], jobs=1).execute(runs, lambda outcome, started: None)
    (failed,), (finished,) = outcome.failed, outcome.finished
    assert re.search(says, failed.reason), failed.reason
    assert finished.metrics == {"trained.psnr": 1.0}


def test_what_is_finished_can_be_read_before_all_of_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    seen = []

    def execute(self: Sweep, runs: list[PlannedRun], on_change: OnChange) -> SweepOutcome:
        outcome = SweepOutcome()
        for run in runs:
            outcome.finished.append(Finished(run, {"trained.psnr": float(run.seed)}, 1.0, tmp_path / run.folder_name))
            on_change(outcome, [])
            there = tmp_path / sweep.UNFINISHED
            seen.append(json.loads(there.read_text())["pending"] if there.exists() else None)
        return outcome

    monkeypatch.setattr(Sweep, "execute", execute)
    summary = sweep.run_sweep([str(config / "run.yaml")], "0-2", folder=tmp_path, jobs=1)
    assert seen == [2, 1, 1] and summary["pending"] == 0
    assert (tmp_path / "sweep.json").exists() and not (tmp_path / sweep.UNFINISHED).exists()


@pytest.mark.parametrize("options", [["--threads", "0"], ["--jobs", "0"], ["--jobs", "-1"]])
def test_no_threads_and_no_jobs_are_refused(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["sweep", "--config", str(config / "run.yaml"), *options]) == 1
    assert "at least 1" in capsys.readouterr().err


def test_hparams_have_the_runs_of_the_sweep_alone_and_numbers_as_numbers(tmp_path: Path) -> None:
    def summary(values: list[str]) -> dict:
        return {
            "variations": {f"a.b={v}": {"arguments": [f"--a.b={v}"], "measures": {}} for v in values},
            "runs": [
                {
                    "variation": f"a.b={v}",
                    "seed": 0,
                    "folder": f"{v}-seed-0-0123456789",
                    "measures": {"trained.psnr": 1.0},
                }
                for v in values
            ],
        }

    mine = tmp_path / "tensorboard" / "mine" / "events.out.tfevents.1"
    mine.parent.mkdir(parents=True)
    mine.touch()
    for values in (["2", "x"], ["2", "10"]):
        write(summary(values), tmp_path)
    names = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert names == ["10-seed-0-0123456789", "2-seed-0-0123456789", "mine"] and mine.exists(), (
        "nobody else's are removed"
    )
    events = EventAccumulator(str(tmp_path / "tensorboard" / "10-seed-0-0123456789"))
    events.Reload()
    start = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    assert start.session_start_info.hparams["a.b"].number_value == 10.0


def test_more_runs_at_once_than_gpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one run a GPU"):
        Sweep(tmp_path, [], jobs=3, gpus=["0", "1"])
