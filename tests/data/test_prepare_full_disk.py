"""A disk that is full at any moment of a preparation: one line, nothing half made, and once there is room it goes on."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heads import record, sine, still
from killed_prepare import SETTINGS, files, run

from fedtalk.errors import OutputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("anna/a.mp4", "bert/b.mp4"):
        record(tmp_path / "raw" / name, still(10), sine(10))
    run(tmp_path, "whole", SETTINGS)
    return tmp_path


def ends_whole(folder: Path, clients: str) -> None:
    whole = files(folder / "whole")
    for name, content in files(folder / clients).items():
        assert ".part-" not in name and (name.startswith(".prepare/") or whole[name] == content)
    run(folder, clients, SETTINGS)
    assert files(folder / clients) == whole


class Full:
    """A disk that takes so many more changes, and then none: no file, folder or name, and nothing that was written late."""

    def __init__(self, room: int, patch: pytest.MonkeyPatch) -> None:
        self._room, self.refused = room, False
        for name in ("mkdir", "replace", "fsync"):
            patch.setattr(os, name, self._limited(getattr(os, name)))

    def _limited(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def tried(*arguments: Any, **how: Any) -> Any:
            self._room -= 1
            if self._room < 0:
                self.refused = True
                raise OSError(
                    errno.ENOSPC,
                    os.strerror(errno.ENOSPC),
                    *(one for one in arguments[:1] if isinstance(one, str | Path)),
                )
            return change(*arguments, **how)

        return tried


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_that_fills_before_any_change(folder: Path, step: int) -> None:
    room = 0
    while True:
        clients = f"clients-{room}"
        with pytest.MonkeyPatch.context() as patch:
            disk = Full(room, patch)
            try:
                run(folder, clients, SETTINGS)
            except OutputError as error:
                assert "No space left on device" in str(error) and "\n" not in str(error)
        if not disk.refused:
            break
        ends_whole(folder, clients)
        room += step
    assert room > 20


@pytest.mark.parametrize("size", [200, 1500, 4000])
def test_that_fills_within_a_file(folder: Path, size: int) -> None:
    """As the system says it: no file may grow beyond a size."""
    assert any(len(content) > size for content in files(folder / "whole").values())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            run(folder, "clients", SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ends_whole(folder, "clients")


def test_a_file_in_a_persons_place_is_named(folder: Path) -> None:
    (folder / "clients").mkdir()
    (folder / "clients" / "anna").touch()
    with pytest.raises(OutputError, match=r"anna can't be changed \(File exists\)"):
        run(folder, "clients", SETTINGS)
    (folder / "clients" / "anna").unlink()
    ends_whole(folder, "clients")
