"""`fedtalk doctor` says what there is, tries it, and what to do where it is not."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from fedtalk.cli import main
from fedtalk.planning import doctor


@pytest.fixture
def found(tmp_path: Path) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(str(tmp_path / "cache"))}


def test_what_the_tests_themselves_need_is_found_and_has_worked(
    found: dict[str, doctor.Finding], tmp_path: Path
) -> None:
    for name in ("python", "torch", "threads", "video and sound codecs", "dlib face finder", "transformers", "opacus",
                 "ray", "placement ddp", "placement fsdp", "precision bf16-mixed",
                 "cache folder", "free disk space"):  # fmt: skip
        assert found[name].ok, found[name]
    assert found["placement ddp"].detail.endswith("gave 1")
    assert list(tmp_path.iterdir()) == []  # nothing left behind, not even the folder it asked about


def test_every_missing_line_says_what_to_do(found: dict[str, doctor.Finding]) -> None:
    assert all(finding.advice for finding in found.values() if not finding.ok)
    assert all(finding.detail and "\n" not in str(finding) for finding in found.values())


def test_model_files_are_looked_for_where_the_variables_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def line() -> doctor.Finding:
        return next(finding for finding in doctor.examine(str(tmp_path)) if finding.name == "FEDTALK_SFACE")

    monkeypatch.delenv("FEDTALK_SFACE", raising=False)
    assert not line().ok and "face_recognition_sface_2021dec.onnx" in line().advice
    monkeypatch.setenv("FEDTALK_SFACE", str(tmp_path / "none.onnx"))
    assert not line().ok and "none.onnx does not exist" in line().detail
    (tmp_path / "none.onnx").write_bytes(b"x")
    assert line().ok


def test_a_machine_that_lacks_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("flwr", "opacus") else find(name))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    lines = {finding.name: str(finding) for finding in doctor.examine(str(tmp_path))}
    assert lines["flower"].split()[:2] == ["missing", "flower"] and lines["flower"].endswith(
        'pip install "fedtalk[flower]"'
    )
    assert "missing" in lines["opacus"] and "missing" in lines["free disk space"]


def test_a_check_that_breaks_is_a_line_and_not_the_end() -> None:
    def broken() -> str:
        raise OSError("libfoo.so: cannot open shared object file")

    finding = doctor._find("foo", broken)
    assert not finding.ok and "libfoo.so" in finding.detail and finding.advice


def test_the_command_prints_lines_or_json_and_always_ends_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["doctor", "--cache_dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["doctor", "--json", "--cache_dir", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(rows) == len(lines) >= 15
    assert all(line.split()[0] == ("ok" if row["ok"] else "missing") for line, row in zip(lines, rows, strict=True))
