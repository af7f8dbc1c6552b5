"""Where things lie in a run, and names that must not reach what is fedtalk's own or another client's."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtalk import run_folder
from fedtalk.callbacks.export import Export
from fedtalk.errors import ConfigurationError
from fedtalk.run_folder import OURS, check_clients, personal_adapter, released_adapter


@pytest.mark.parametrize("name", ["global", "Released", "RELEASED", "personal", "adapters", "con", "a b", "..x"])
def test_no_person_gets_the_released_adapters_folder(name: str) -> None:
    folder, released = personal_adapter(Path("run"), name), released_adapter(Path("run"))
    one, other = ([part.casefold() for part in path.parts] for path in (folder, released))
    assert one[: len(other)] != other != one and other[: len(one)] != one


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../released", "a\\b", "/etc", "x\0"])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="client: expected one plain name of a folder, got "):
        personal_adapter(tmp_path, name)
    with pytest.raises(ConfigurationError, match="client: expected one plain name"):
        check_clients(["anna", name], tmp_path)


def test_names_that_differ_in_case_alone_are_refused_where_the_disk_ignores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [["Anna", "anna"], ["stra\u00dfe", "STRASSE"], ["caf\u00e9", "cafe\u0301"]]
    (tmp_path / "probe").touch()
    assert run_folder._ignores_case(tmp_path) == (tmp_path / "PROBE").exists()
    for ignores in (False, True):
        monkeypatch.setattr(run_folder, "_ignores_case", lambda folder, ignores=ignores: ignores)
        check_clients(["anna", "bert"], tmp_path)
        for pair in pairs:
            if not ignores:
                check_clients(pair, tmp_path)
                continue
            with pytest.raises(ConfigurationError, match="differ in more than case"):
                check_clients(pair, tmp_path)


@pytest.mark.parametrize("name", [*OURS, "Checkpoints", "ADAPTERS", ".lock", "../backbone", "a/b"])
def test_an_export_takes_no_name_of_ours(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"export\.folder: expected"):
        Export(name)


def test_an_export_takes_any_other_name() -> None:
    assert Export("my backbone").folder == "my backbone"
