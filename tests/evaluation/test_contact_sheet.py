"""Contact sheets: the right frames in the right places, readable labels, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fedtalk.errors import ArtifactError, OutputError
from fedtalk.evaluation.contact_sheet import contact_sheet


def _numbered(count: int, offset: int = 0, size: int = 16) -> np.ndarray:
    """Frame ``f`` is uniformly ``10 f + offset`` grey."""
    grey = (10 * np.arange(count) + offset).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (count, size, size, 3)).copy()


def _read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def _runs(line: np.ndarray) -> list[int]:
    """Grey levels of runs of at least 30 equal pixels that are not paper."""
    levels, start = [], 0
    for end in range(1, len(line) + 1):
        if end == len(line) or line[end] != line[start]:
            if end - start >= 30 and line[start] != 255:
                levels.append(int(line[start]))
            start = end
    return levels


def test_every_nth_frame_of_each_row_enlarged(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sheet.png"
    rows = [("truth", _numbered(12)), ("generated", _numbered(12, offset=5))]
    contact_sheet([("anna", rows)], path, columns=4, every=3, magnify=3)
    sheet = _read(path)
    found = {tuple(_runs(line)) for line in sheet[..., 0]}
    assert (0, 30, 60, 90) in found
    assert (5, 35, 65, 95) in found
    tall = [tuple(_runs(line)) == (0, 30, 60, 90) for line in sheet[..., 0]]
    assert sum(tall) == 3 * 16


def test_colours_stay_and_labels_are_written(tmp_path: Path) -> None:
    red = np.zeros((3, 16, 16, 3), np.uint8)
    red[..., 0] = 200
    contact_sheet([("anna", [("truth", red)])], tmp_path / "a.png", magnify=3)
    contact_sheet([("anna", [("other", red)])], tmp_path / "b.png", magnify=3)
    one, other = _read(tmp_path / "a.png"), _read(tmp_path / "b.png")
    assert ((one == (200, 0, 0)).all(-1)).sum() == 3 * 48 * 48
    assert (one[:, :60] < 100).any() and not np.array_equal(one[:, :60], other[:, :60])


@pytest.mark.parametrize(("size", "shown"), [(16, 192), (64, 192), (100, 100), (256, 256)])
def test_frames_are_enlarged_to_be_seen_and_no_further(size: int, shown: int, tmp_path: Path) -> None:
    red = np.full((1, size, size, 3), (200, 0, 0), np.uint8)
    contact_sheet([("anna", [("truth", red)])], tmp_path / "a.png")
    assert ((_read(tmp_path / "a.png") == (200, 0, 0)).all(-1)).sum() == shown * shown


def test_groups_lie_below_each_other(tmp_path: Path) -> None:
    groups = [(name, [("truth", _numbered(6, offset=offset))]) for name, offset in (("anna", 0), ("bert", 7))]
    contact_sheet(groups, tmp_path / "sheet.png", columns=2)
    first = [tuple(_runs(line)) for line in _read(tmp_path / "sheet.png")[..., 0]]
    assert first.index((0, 50)) < first.index((7, 57))


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [("anna", [])],
        [("anna", [("truth", _numbered(6)), ("generated", _numbered(5))])],
        [("anna", [("truth", _numbered(6).astype(np.float32))])],
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, groups) -> None:
    with pytest.raises(ArtifactError, match="contact sheet"):
        contact_sheet(groups, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write"):
        contact_sheet([("anna", [("truth", _numbered(6))])], tmp_path / "file" / "sheet.png")
