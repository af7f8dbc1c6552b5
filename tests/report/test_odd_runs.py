"""Pages of folders that were copied, cut short, oddly named or written by another version."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from fedtalk.errors import ArtifactError
from fedtalk.report import page
from fedtalk.report.charts import MOST_CLIENTS, clients_chart, curves_chart, differences_chart
from fedtalk.report.collect import read_curves
from fedtalk.report.page import write_report

MEASURES: dict[str, float | None] = {"psnr": 30.0, "psnr_mouth": 24.0, "mouth_corr": 0.9, "identity": 0.8}
ROWS = ("trained", "personal", "no_adapter", "swapped_audio")


def _run(
    folder: Path,
    measures: Mapping[str, float | None] = MEASURES,
    curves: Mapping[str, Sequence[float]] = {"train/loss": (1.0, 0.5)},
    clients: Sequence[str] = ("anna", "bert"),
) -> Path:
    """A folder as `fedtalk fit` and `fedtalk test` leave it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed_everything: 3\n")
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for tag, values in curves.items():
            for step, value in enumerate(values, 1):
                writer.add_scalar(tag, value, step)
    metrics = {
        **dict.fromkeys(ROWS, measures),
        "clips": [{"client": client, "dub": dict.fromkeys(ROWS, measures)} for client in clients],
        "about": {"clips": len(clients), "clients": len(clients)},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def _sweep(folder: Path, **changed: Any) -> Path:
    estimate = {"mean": 24.0, "low": None, "high": None, "seeds": 1}
    difference = {**estimate, "mean": 1.0, "p_value": None, "excludes_zero": False}
    summary = {
        "about": {"configs": ["isfa.yaml"], "seeds": [0], "vary": [], "threads": 1, "code": "a", "torch": "2", "date": "d"},
        "variations": {
            "base": {"arguments": [], "measures": {"personal.psnr_mouth": estimate, "swapped_audio.mouth_corr": estimate}},
            "a=$x^$": {"arguments": [], "measures": {"personal.psnr_mouth": {**estimate, "against_first": difference}}},
        },
        "runs": [{"variation": "base", "seed": 0, "key": "k", "folder": "r", "seconds": 1.0, "measures": {}}],
        "failed": [],
    }  # fmt: skip
    _run(folder / "runs" / "r")
    (folder / "sweep.json").write_text(json.dumps(summary | changed))
    return folder


def _page(tmp_path: Path, *folders: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return write_report(folders, tmp_path / "page.html").read_text(encoding="utf-8")


def test_results_come_before_curves_and_a_single_run_is_named_once(tmp_path: Path) -> None:
    text = _page(tmp_path, _run(tmp_path / "isfa"))
    places = [
        text.index(part) for part in ("Results</h2>", "<h3>Dub</h3>", "Curves</h2>", "Privacy</h2>", "Config</h2>")
    ]
    assert places == sorted(places)
    assert re.findall(r"<h[12].*isfa", text) == ["<h1>isfa"]


def test_several_runs_are_compared_before_anything_else(tmp_path: Path) -> None:
    better = _run(tmp_path / "isfa", {**MEASURES, "psnr_mouth": 25.5})
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.yaml").touch()
    text = _page(tmp_path, better, _run(tmp_path / "fedavg"), tmp_path / "none")
    first = re.sub(r"<[^>]+>", " ", text[text.index("Side by side") : text.index("Curves</h2>")])
    assert re.search(r"isfa\s+fedavg\s+personal: psnr mouth, dB ↑\s+25.500\s+24.000", first), first
    assert "swapped audio: mouth corr ↑" not in text, (
        "speech of somebody else should not move the mouth as the truth does"
    )


def test_numbers_that_are_none_cost_their_cells_alone(tmp_path: Path) -> None:
    gone = _run(tmp_path / "gone", {**MEASURES, "psnr_mouth": None, "identity": math.nan})
    text = _page(tmp_path, gone, _run(tmp_path / "b", curves={"train/loss": (1.0, math.nan, 0.2)}))
    assert "train/loss (1 value not finite)" in text and "Worst clips" in text


@pytest.mark.parametrize("name", ["d$x^$", "_f", "данные 数据 é &", "n" * 120])
def test_names_are_shown_as_they_are_and_leave_room_for_the_chart(tmp_path: Path, name: str) -> None:
    text = _page(tmp_path, _run(tmp_path / name, clients=(name, "anna")), _run(tmp_path / "other", clients=(name,)))
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    seen = name.replace("&", "&amp;") if len(name) < 100 else "nnn…nnn"
    assert sum(seen in chart for chart in charts) == len(charts), "in legends of curves and beside the clients' axis"
    differences_chart(name, "dB", {name: {"mean": 1.0, "low": None, "high": None}})


def test_a_copy_has_the_curves_of_the_original(tmp_path: Path) -> None:
    for value, steps in ((1.0, (1, 2)), (5.0, (2, 3))):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{value}") as writer:
            for step in steps:
                writer.add_scalar("x", value, step, walltime=1000.0 * value)
    for age, path in enumerate(sorted(tmp_path.glob("events.*"))):  # as of a copy: the first file is the newest
        os.utime(path, (1e9 - age, 1e9 - age))
    assert read_curves(tmp_path) == {"x": {1: 1.0, 2: 5.0, 3: 5.0}}


def test_pictures_that_are_gone_are_named(tmp_path: Path) -> None:
    run = _run(tmp_path / "isfa")
    (run / "videos" / "folder.mp4").mkdir(parents=True)
    (run / "videos" / ".part-anna.mp4").write_bytes(b"half")
    (run / "videos" / "anna-portrait.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (run / "contact_sheet.png").write_bytes(b"no picture")
    (run / "config.yaml").write_bytes(b"name: caf\xe9\ntrainer: 3\n")
    text = _page(tmp_path, run)
    assert (
        re.findall(r"<figcaption>(.*?)<br>", text) == ["anna: portrait"]
        and "anna-portrait.mp4 can&#39;t be read" in text
    )
    assert "contact_sheet.png is no picture" in text


def test_a_page_has_room_for_so_many_curves_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_CURVES", 2)
    run = _run(tmp_path / "isfa", curves={f"x/{number}": (1.0,) for number in range(5)} | {"train/loss": (1.0,)})
    text = _page(tmp_path, run)
    assert "2 more curves" in text and "3 more are left out, such as x/2, x/3, x/4" in text


def test_every_client_has_a_line_until_there_are_too_many() -> None:
    svg = clients_chart("psnr", "dB", {"personal": {"anna": [20.0]}, "trained": {"anna": [19.0], "bert": [10.0]}})
    assert svg.index(">bert<") < svg.index(">anna<"), "no personal adapter, yet the lowest"
    many = clients_chart("psnr", "dB", {"trained": {f"c{n:03}": [float(n)] for n in range(MOST_CLIENTS + 10)}})
    assert f"the lowest {MOST_CLIENTS} of {MOST_CLIENTS + 10} clients" in many
    assert f">c{MOST_CLIENTS - 1:03}<" in many and f">c{MOST_CLIENTS:03}<" not in many


def test_lines_of_one_colour_differ_in_their_style() -> None:
    svg = curves_chart("loss", {str(number): [{1: 0.1, 2: 0.2}] for number in range(9)})
    assert svg.count("stroke-dasharray") >= 1


def test_a_sweep_of_one_seed_and_odd_names_is_a_page(tmp_path: Path) -> None:
    text = _page(tmp_path, _sweep(tmp_path / "sweep"))
    assert "a=$x^$" in text and "one seed: no intervals" in text and "seeds 0; 1 thread a run" in text


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"about": {"configs": []}}, "about has no seeds"),
        ({"variations": []}, "variations: expected an object"),
        ({"variations": {"base": {"measures": {"x": {"mean": 1.0}}}}}, "base.x has no low"),
        ({"runs": [{"variation": "base", "folder": "r"}]}, "no seed"),
        ({"runs": [{"variation": "gone", "seed": 0, "folder": "r"}]}, "'gone'"),
        ({"failed": 3}, "expected a list, got int"),
    ],
)
def test_a_summary_of_another_version_is_refused_by_what_it_lacks(tmp_path: Path, changed: dict, says: str) -> None:
    with pytest.raises(ArtifactError, match="as this version of fedtalk writes it") as caught:
        _page(tmp_path, _sweep(tmp_path / "sweep", **changed))
    assert says in str(caught.value) and "sweep.json" in str(caught.value)
