"""The paper's tables: what is made of sweeps, and the whole way in miniature."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from fedtalk.sweeps.execution import Finished, SweepOutcome
from fedtalk.sweeps.plan import PlannedRun, Variation
from fedtalk.sweeps.summary import summarise

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return load_script("paper_tables")


def _summary(values: dict[str, list[float]]) -> dict:
    """A sweep whose runs have these ``trained.psnr_mouth`` by variation and seed, and 20 without an adapter."""
    runs = [PlannedRun(Variation(name, ()), seed, f"{name}{seed}") for name in values for seed in range(3)]
    finished = [
        Finished(
            run, {
                "trained.psnr": 30.0, "trained.psnr_mouth": values[run.variation.name][run.seed], "no_adapter.psnr_mouth": 20.0,
            }, 1.0, Path(run.key),
        )
        for run in runs
    ]  # fmt: skip
    return summarise(runs, SweepOutcome(finished), {"seeds": [0, 1, 2], "date": "2026-01-01"})


def test_a_table_says_what_differs_and_how_far_it_is_to_the_oracle(script, tmp_path: Path) -> None:
    values = {"fedavg": [20.0, 21.0, 22.0], "base": [21.0, 22.1, 22.9], "oracle": [22.0, 23.0, 24.0]}
    labels = ["fedavg", "isfa", "oracle"]
    lines = script.table(_summary(values), tmp_path, "Rules", "trained", ("psnr_mouth", "mouth_corr"), labels)
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "21.000 ± 2.484" in rows["fedavg"] and "; " not in rows["fedavg"]
    assert "+1.000 [+0.752, +1.248]*" in rows["isfa"]
    assert "20.000" in rows["*no_adapter*"]
    text = "\n".join(lines + script.gains(_summary(values), labels))
    assert "| less no adapter | released: psnr_mouth |" in text and "| fedavg | +1.000 [-1.484, +3.484] |" in text
    assert "psnr_mouth, share of the way from fedavg to oracle (+2.0000): isfa +0.50" in text


def test_a_measure_that_was_no_number_is_left_out_of_its_mean(script, tmp_path: Path) -> None:
    summary = _summary({"fedavg": [20.0, 21.0, 22.0], "base": [21.0, 22.0, 23.0]})
    summary["runs"][0]["measures"]["trained.psnr_mouth"] = None  # as `fedtalk sweep` writes what is not finite
    rows = script.table(summary, tmp_path, "Rules", "trained", ("psnr_mouth",), ["fedavg", "isfa"])
    assert any(row.startswith("| fedavg | 21.500 ") for row in rows)


def test_where_all_seeds_measure_the_same_people_intervals_are_over_people_too(script, tmp_path: Path) -> None:
    summary = _summary({"fedavg": [20.0, 21.0, 22.0], "base": [21.0, 22.0, 23.0]})
    gains = {"anna": 0.0, "bert": 1.0, "cleo": 2.0}
    for run in summary["runs"]:
        above = run["seed"] if run["variation"] == "fedavg" else -run["seed"]  # of seeds nothing but the mean counts
        clips = [
            {"client": person, "dub": {
                "trained": {"psnr_mouth": 20.0 + above + gain * (run["variation"] == "base")}, "no_adapter": {"psnr_mouth": 19.0},
            }}
            for person, gain in gains.items()
        ]  # fmt: skip
        folder = tmp_path / "runs" / run["folder"]
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"trained": {}, "no_adapter": {}, "clips": clips}))
    lines = script.over_people(summary, tmp_path, "personal", ["fedavg", "isfa"])  # no run has personal adapters
    assert "| fedavg less no adapter | +2.000 [+2.000, +2.000] |  |  |" in lines
    assert "| isfa less no adapter | +1.000 [-1.484, +3.484] |  |  |" in lines
    assert "| isfa less fedavg | -1.000 [-3.484, +1.484] |  |  |" in lines


def test_where_the_oracle_is_no_better_there_is_no_way_to_go_shares_of(script, tmp_path: Path) -> None:
    values = {"fedavg": [20.0, 21.0, 22.0], "base": [21.0, 22.1, 22.9], "oracle": [20.5, 20.5, 22.0]}
    lines = script.table(_summary(values), tmp_path, "Rules", "trained", ("psnr_mouth",), ["fedavg", "isfa", "oracle"])
    assert "- psnr_mouth: no way from fedavg to oracle, +0.0000 [-1.2421, +1.2421]" in lines


def test_an_interval_that_holds_0_has_no_star(script, tmp_path: Path) -> None:
    values = {"fedavg": [20.0, 21.0, 22.0], "base": [21.0, 20.5, 22.0]}
    lines = script.table(_summary(values), tmp_path, "Rules", "trained", ("psnr_mouth",), ["fedavg", "isfa"])
    row = next(line for line in lines if line.startswith("| isfa"))
    assert "]" in row and "*" not in row


def test_a_method_without_personal_adapters_is_compared_with_the_first_row_as_it_is_shown(
    script, tmp_path: Path
) -> None:
    summary = _summary({"fedavg": [20.0, 21.0, 22.0], "centralised": [21.0, 22.0, 23.0]})
    for run in summary["runs"]:
        if run["variation"] == "fedavg":
            run["measures"] |= {"personal.psnr": 30.0, "personal.psnr_mouth": run["measures"]["trained.psnr_mouth"] + 3}
    lines = script.table(summary, tmp_path, "Methods", "personal", ("psnr_mouth",), ["fedavg", "centralised"])
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "24.000 ± 2.484" in rows["fedavg"] and "22.000 ± 2.484; -2.000 [-2.000, -2.000]*" in rows["centralised"]


def test_what_was_not_run_is_named(script, tmp_path: Path) -> None:
    text = script.write_tables(tmp_path).read_text()
    assert text.count("not run.") == len(script.EXPERIMENTS)


def test_a_sweep_of_other_variations_is_named(script, tmp_path: Path) -> None:
    (tmp_path / "tdc").mkdir()
    (tmp_path / "tdc" / "sweep.json").write_text(json.dumps(_summary({"fedavg": [20.0, 21.0, 22.0]})))
    assert (
        f"{tmp_path / 'tdc' / 'sweep.json'} is of other variations; run it again."
        in script.write_tables(tmp_path).read_text()
    )


def test_every_overlay_is_one_that_is_there(script, tmp_path: Path) -> None:
    configs = {path.stem for path in (SCRIPTS.parent / "configs").glob("*.yaml")}
    for experiment in script.EXPERIMENTS.values():
        assert len(experiment.names) == len(experiment.variations)
        named = [
            part for one in (*experiment.variations, *experiment.base, *experiment.configs) for part in one.split("+")
        ]
        assert set(named) <= configs | set(script.overlays(script.FULL)) | {"base"}
    written = script.write_overlays(tmp_path / "overlays", script.QUICK, None)
    scale = yaml.safe_load(written["scale"].read_text())
    assert Path(scale["model"]["init_args"]["backbone"]).is_dir()


@pytest.mark.parametrize("name", ["SMALL", "QUICK"])
def test_who_trains_alone_or_pooled_takes_as_many_steps_as_the_others(script, name: str) -> None:
    scale = getattr(script, name)
    found, trainer = script.overlays(scale), scale.run["trainer"]
    rounds, steps = trainer["rounds"], trainer["local"]["steps"]  # everybody is in every round
    assert trainer["cohort"]["init_args"]["rate"] == 1.0
    alone = found["local_only"]["trainer"]
    assert alone["rounds"] == 0 and alone["personal"]["steps"] == rounds * steps + trainer["personal"]["steps"]
    base = yaml.safe_load((SCRIPTS.parent / "configs" / "isfa.yaml").read_text())["data"]["init_args"]
    assert (
        found["centralised"]["trainer"]["local"]["steps"]
        == steps * {**base, **scale.made["data"]["init_args"]}["speakers"]
    )
    assert found["centralised"]["data"]["init_args"] == {"centralised": True}


def test_tables_are_put_where_a_page_has_a_place_for_them(script, tmp_path: Path) -> None:
    experiment = script.EXPERIMENTS["tdc"]
    values = {name: [20.0, 21.0, 22.0] for name in experiment.variations}
    (tmp_path / "tdc").mkdir()
    (tmp_path / "tdc" / "sweep.json").write_text(json.dumps(_summary(values)))
    page = tmp_path / "results.md"
    page.write_text("Above.\n<!-- tdc -->\nof old\n<!-- /tdc -->\nBelow.\n<!-- lora -->not run<!-- /lora -->\n")
    for _ in range(2):  # the second time it finds what it wrote
        assert script.write_into(page, tmp_path) == ["tdc"]
        text = page.read_text()
        assert text.startswith("Above.\n<!-- tdc -->\n\n**TDC by its weight") and "of old" not in text
        assert text.count("| tdc-0.1 | 21.000 ± 2.484; +0.000") == 1
        assert text.endswith("<!-- /tdc -->\nBelow.\n<!-- lora -->not run<!-- /lora -->\n")
    page.write_text("<!-- tdc -->")
    with pytest.raises(SystemExit, match="has no <!-- /tdc --> after it"):
        script.write_into(page, tmp_path)


@pytest.mark.slow
def test_the_miniature_goes_the_whole_way_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "paper_tables.py"), "--quick", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "tables.md").read_text()
    assert "not run." not in text
    for name in script.EXPERIMENTS:
        summary = json.loads((tmp_path / name / "sweep.json").read_text())
        assert summary["failed"] == []
    again = subprocess.run([*command, "--only", "tdc"], capture_output=True, text=True, check=False)
    assert again.returncode == 0 and json.loads((tmp_path / "tdc" / "sweep.json").read_text())["about"]["kept"] == 3
