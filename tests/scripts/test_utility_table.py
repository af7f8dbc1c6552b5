"""The table of utility under privacy: its plans, its arithmetic, and one tiny run from the plan to the measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from fedtalk.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def utility(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("utility_table")


def _privacy(plan: dict) -> dict | None:
    return plan["trainer"]["privacy"]


def test_plans_differ_in_seed_and_privacy_alone(utility: ModuleType, tmp_path: Path) -> None:
    config = ROOT / "configs" / "private.yaml"
    given = yaml.safe_load(config.read_text())
    off, four = (utility.planned(config, tmp_path / "run", epsilon, 7) for epsilon in ("off", "4"))
    private = _privacy(four)
    assert private is not None and private["target_epsilon"] == 4.0 and _privacy(off) is None
    assert off["seed_everything"] == 7 and off["trainer"]["default_root_dir"] == str(tmp_path / "run")
    private["target_epsilon"] = _privacy(given)["target_epsilon"]
    for plan in (off, four):
        people = plan["data"]["init_args"]
        assert plan["model"] == given["model"] and people == {**given["data"]["init_args"], "seed": 0}
        assert plan["trainer"]["rounds"] == given["trainer"]["rounds"]
    assert private == _privacy(given)


def test_settings_can_be_changed_for_a_smaller_table(utility: ModuleType, tmp_path: Path) -> None:
    config = ROOT / "configs" / "private.yaml"
    changes = ["trainer.rounds=2", "trainer.privacy.delta=1.0e-3", "trainer.cohort.init_args.rate=0.5"]
    whole, smaller = (utility.planned(config, tmp_path, "8", 0, changes=some) for some in ((), changes))
    trainer = smaller["trainer"]
    assert (trainer["rounds"], trainer["privacy"]["delta"]) == (2, 1e-3)
    assert trainer["cohort"]["init_args"] == {"rate": 0.5}
    for name in ("rounds", "privacy", "cohort"):
        whole["trainer"].pop(name), trainer.pop(name)
    assert whole == smaller


def test_adapters_are_compared_seed_by_seed(utility: ModuleType, tmp_path: Path) -> None:
    config = ROOT / "configs" / "private.yaml"
    plans = {adapter: utility.planned(config, tmp_path, "8", 0, adapter) for adapter in ("freeze_a", "fedsvd")}
    chosen = {name: plan["model"]["init_args"]["adapter"].pop("aggregation") for name, plan in plans.items()}
    assert chosen == {"freeze_a": "freeze_a", "fedsvd": "fedsvd"} and plans["freeze_a"] == plans["fedsvd"]
    found = {
        f"{adapter} 8": [
            {"released": {c: [base + seed, base + seed + 1] for c in utility.COLUMNS}} for seed in (0, 5, 9)
        ]
        for adapter, base in (("freeze_a", 1.0), ("fedsvd", 1.25))
    }
    row = utility.difference(found, ["freeze_a", "fedsvd"], "8")
    assert row["error"] == 0.25 and row["error_interval"] == 0.0, "what seeds have in common cancels"


def test_rows_are_means_over_people_with_student_intervals_over_seeds(utility: ModuleType) -> None:
    without = {column: [1.0, 2.0] for column in utility.COLUMNS}
    runs = [
        {"no_adapter": without, "released": {**without, "error": [0.9 - shift, 2.1 - shift]}}
        for shift in (0.1, 0.2, 0.3)
    ]
    table = utility.summary({"8": runs})
    assert table["no_adapter"]["error"] == 1.5
    # Changes of the mean are -0.1, -0.2, -0.3: t(0.975, 2) = 4.3027, deviation 0.1.
    assert table["8"]["error"] == pytest.approx(-0.2) and table["8"]["error_interval"] == pytest.approx(
        0.2484, abs=1e-4
    )
    assert table["8"]["error_better_share"] == pytest.approx((0.5 + 1 + 1) / 3, abs=1e-3)
    assert table["8"]["psnr_mouth"] == 0.0


def test_a_tiny_run_is_measured_on_people_who_took_no_part(
    utility: ModuleType, tiny_backbone: Path, tmp_path: Path
) -> None:
    settings = yaml.safe_load((ROOT / "configs" / "private.yaml").read_text())
    settings["model"]["init_args"] |= {"backbone": str(tiny_backbone), "window": 4, "stride": 4, "sampling_steps": 1}
    settings["data"]["init_args"] |= {"speakers": 5, "frames": 12, "size": 32}
    settings["trainer"] |= {"rounds": 1, "minimum_clients": 1, "cache_dir": str(tmp_path / "cache")}
    settings["trainer"]["cohort"]["init_args"]["rate"] = 0.9
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(settings))
    run.mkdir()
    (run / "plan.yaml").write_text(yaml.safe_dump(utility.planned(config, run, "off", 0)))
    assert main(["fit", "--config", str(run / "plan.yaml"), "--ckpt_path", "last"]) == 0
    utility.measure(run, 2, tmp_path)
    found = json.loads((run / "utility.json").read_text())
    assert found["rounds"] == 1 and found["ledger"] is None
    errors = np.array([found[row]["error"] for row in ("no_adapter", "released")])
    assert errors.shape == (2, 2) and np.isfinite(errors).all() and (errors[0] != errors[1]).all()
    assert all(len(found[row][column]) == 2 for row in ("no_adapter", "released") for column in utility.COLUMNS)
