"""Scores by round: which clients are unreliable, and how well scores tell them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

SCRIPTS = Path(__file__).parents[2] / "scripts"


def _run(folder: Path, seed: int) -> None:
    """Ten clients, the last three unreliable: by the paper's scores flicker is seen from the second round on, late sound never,
    and blur scores higher; quality sees blur alone, and leaves it no weight."""
    folder.mkdir(parents=True)
    data = {"speakers": 10, "unreliable": 0.3, "frames": 20}
    config = {"seed_everything": seed, "data": {"class_path": "SynthTalkData", "init_args": data}}
    config["trainer"] = {"aggregation": {"class_path": "ISFA", "init_args": {"scores": "paper"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for number in (1, 2):
            for index in range(10):
                stability = {9: 0.5 if number == 1 else 0.1, 8: 0.5, 7: 0.9}.get(index, 0.5)
                writer.add_scalar(f"client_identity/private-{index:04}", 0.8, number)
                writer.add_scalar(f"client_stability/private-{index:04}", stability, number)
                writer.add_scalar(f"client_quality/private-{index:04}", 0.0 if index == 7 else 1.0, number)
                writer.add_scalar(f"client_weight/private-{index:04}", 0.0 if index == 7 else 1.0, number)


def test_areas_by_round_and_fault(
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = load_script("scores_by_round")
    runs = [{"variation": "isfa_paper+released", "folder": f"run-{seed}"} for seed in (0, 1)]
    for seed, run in enumerate(runs):
        _run(tmp_path / "runs" / run["folder"], seed)
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": runs, "variations": {"isfa_paper+released": {}}}))
    monkeypatch.setattr(sys, "argv", ["scores_by_round", str(tmp_path)])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    head, table = rows[0], {(row[0], row[1]): row for row in rows[2:]}
    column = {
        name: head.index(name) for name in ("flicker", "shifted_audio", "blurred", "any of them", "share of the weight")
    }
    first, second = table["1", "score"], table["2", "score"]
    assert first[column["flicker"]].startswith("0.50") and second[column["flicker"]].startswith("1.00")
    assert second[column["shifted_audio"]].startswith("0.50") and second[column["blurred"]].startswith("0.00")
    assert "wrong_person" not in head and second[column["any of them"]].startswith("0.50")
    assert second[column["share of the weight"]].startswith("0.22")  # two of nine
    assert table["2", "identity"][column["flicker"]].startswith("0.50")
    for run in runs:
        config = yaml.safe_load((tmp_path / "runs" / run["folder"] / "config.yaml").read_text())
        config["trainer"]["aggregation"]["init_args"]["scores"] = "quality"
        (tmp_path / "runs" / run["folder"] / "config.yaml").write_text(yaml.safe_dump(config))
    script.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert [row[1] for row in rows[2:]] == ["score", "score"]
    assert rows[2][column["blurred"]].startswith("1.00") and rows[2][column["flicker"]].startswith("0.50")
    monkeypatch.setattr(sys, "argv", ["scores_by_round", str(tmp_path), "--variation", "nothing"])
    with pytest.raises(SystemExit, match="no finished run of nothing"):
        script.main()
