"""Consent records: written empty, read strictly, warned about or required, and obeyed when taken back."""

from __future__ import annotations

import logging
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.consent import (
    GENERATE,
    RECORD,
    TRAIN,
    Consent,
    forget,
    overview,
    read_consent,
    require,
    revoked,
    write_template,
)
from fedtalk.data.folder_data import FolderData
from fedtalk.errors import ArtifactError, ConfigurationError

TODAY = date.today()


def _fill(folder: Path, **changes: object) -> None:
    values = {
        "person": folder.name,
        "purposes": "[train, generate]",
        "given": TODAY,
        "until": "null",
        "revoked": "null",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text("".join(f"{key}: {value}\n" for key, value in {**values, **changes}.items()))


def _clients(root: Path, *people: str) -> Path:
    points = np.full((60, 2, 2), 4, np.float32)
    for person in people:
        frames, audio = np.zeros((60, 32, 32, 3), np.uint8), np.zeros(60 * SAMPLES_PER_FRAME, np.float32)
        Clip(frames, audio, points, points[:, 0]).save(root / person / "clip-0000.npz")
    return root


@pytest.mark.parametrize("name", ["anna", "Jörg: the 2nd", "null", "12", "#5"])
def test_the_template_agrees_to_nothing_and_is_never_overwritten(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    write_template(folder)
    assert read_consent(folder) == Consent(name)
    assert Consent(name).problem(TRAIN) == "is not given"
    _fill(folder, person='"x"')
    write_template(folder)
    assert read_consent(folder).given == TODAY


@pytest.mark.parametrize(
    ("changes", "purpose", "said"),
    [
        ({}, TRAIN, None),
        ({}, GENERATE, None),
        ({"purposes": (TRAIN,)}, GENERATE, "does not cover 'generate'"),
        ({"given": TODAY + timedelta(1)}, TRAIN, "is not given"),
        ({"until": TODAY}, TRAIN, None),
        ({"until": TODAY - timedelta(1)}, TRAIN, "ended on"),
        ({"revoked": TODAY}, TRAIN, "was taken back on"),
        ({"revoked": TODAY + timedelta(1)}, TRAIN, None),
    ],
)
def test_what_a_record_covers(changes: dict, purpose: str, said: str | None) -> None:
    record = Consent(**{"person": "anna", "purposes": (TRAIN, GENERATE), "given": TODAY, **changes})
    why = record.problem(purpose, TODAY)
    assert why is None if said is None else why is not None and said in why


@pytest.mark.parametrize(
    "text",
    ["", "[]", "person: [anna]", "person: anna\nwho: me", "person: anna\ngiven: soon", "person: anna\npurposes: train",
     "person: anna\npurposes: [sell]", "person: anna\nrevoked: true", "a: [", "\x00"],
)  # fmt: skip
def test_a_record_that_cant_be_understood_is_one_line_and_no_consent(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(ArtifactError, match=RECORD) as caught:
        read_consent(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="have not agreed"):
        require(tmp_path.parent, [tmp_path.name], "strict")


def test_fit_warns_once_and_strict_refuses_with_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = _clients(tmp_path / "clients", "anna", "bert", "cleo")
    _fill(root / "anna")
    _fill(root / "bert", until=TODAY - timedelta(3))
    with caplog.at_level(logging.WARNING):
        assert FolderData(str(root), size=32).clients == ["anna", "bert", "cleo"]
    (told,) = [record.getMessage() for record in caplog.records]
    assert "2 of 3 people" in told and "bert: consent ended on" in told and "cleo: no consent record" in told
    with pytest.raises(ConfigurationError, match="2 of 3 people have not agreed"):
        FolderData(str(root), size=32, consent="strict")
    _fill(root / "bert")
    _fill(root / "cleo")
    caplog.clear()
    assert FolderData(str(root), size=32, consent="strict").clients == ["anna", "bert", "cleo"]
    assert not caplog.records
    with pytest.raises(ConfigurationError, match=r"data\.consent: expected one of warn, strict, got 'off'"):
        FolderData(str(root), size=32, consent="off")


def test_who_took_consent_back_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = _clients(tmp_path / "clients", "anna", "bert")
    _fill(root / "anna")
    _fill(root / "bert", revoked=TODAY)
    assert revoked(root / "bert") and not revoked(root / "anna")
    with caplog.at_level(logging.WARNING):
        data = FolderData(str(root), size=32, consent="strict")
    assert (data.clients, data.revoked) == (["anna"], ["bert"])
    assert "left out, since they took consent back: bert" in caplog.text


def test_the_overview_has_a_line_for_each_person_and_none_for_other_folders(tmp_path: Path) -> None:
    """`prepare` keeps its own records in a hidden folder beside the people."""
    for name in (".prepare", "@eaDir", "ann\udce9", "bert"):
        (tmp_path / name).mkdir()
    _fill(tmp_path / "bert", revoked=TODAY)
    lines, gone = overview(tmp_path)
    assert [line.split(":")[0] for line in lines] == ["ann%E9", "bert"] and gone == ["bert"]
    assert "no consent record" in lines[0] and "taken back" in lines[1]


def test_their_adapters_and_states_are_deleted_and_nobody_elses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for person in ("released", "bertha", "anna"):
        for place in (f"run/adapters/personal/{person}", f"run2/adapters/personal/{person}"):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "adapter_config.json").write_text("{}")
        (tmp_path / "run/clients" / person).mkdir(parents=True)
        (tmp_path / "run/clients" / person / "3.ckpt").write_text("")
    (tmp_path / "run/adapters/released/adapter_config.json").parent.mkdir()  # folders that only have the name
    (tmp_path / "run/adapters/released/adapter_config.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        gone = forget(tmp_path, ["released"])
    assert {str(path.relative_to(tmp_path)) for path in gone} == {
        "run/adapters/personal/released", "run2/adapters/personal/released", "run/clients/released"}  # fmt: skip
    assert all(f"deleted {path}: released took consent back" in caplog.text for path in gone)
    left = {path.name for path in tmp_path.rglob("*") if path.is_dir()}
    assert {"anna", "bertha"} <= left and (tmp_path / "run/adapters/released").is_dir()
    assert forget(tmp_path, ["released"]) == []
