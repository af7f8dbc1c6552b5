"""Files are whole or absent, also when the disk is full or the folder is none."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedtalk.errors import OutputError
from fedtalk.storage import atomic_path, remove_leftovers, write_json


def test_a_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "value.json"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".json"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["value.json"]


def test_a_file_is_replaced_and_never_written_over(tmp_path: Path) -> None:
    """Who has the old file open goes on reading the old file, so no instant shows a half-written one."""
    target = tmp_path / "value.json"
    write_json(target, "old")
    with target.open() as reader:
        write_json(target, "new")
        assert reader.read() == '"old"\n'
    assert json.loads(target.read_text()) == "new"


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "value.json", 1)
        assert (tmp_path / "value.json").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "value.json"
    target.write_text("old")
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


@contextmanager
def _limited(size: int) -> Iterator[None]:
    """Files of this process can't grow beyond ``size`` bytes: writing fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_a_clear_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"old": True})
    with (
        _limited(4096),
        pytest.raises(OutputError, match=r"writing .*value\.json failed: .*untouched.*Free some space"),
    ):
        write_json(target, {"new": "x" * 10_000})
    assert json.loads(target.read_text()) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize("what", ["checkpoint", "clip", "codec", "adapter"])
def test_a_full_disk_is_a_clear_error_for_everything_that_is_written(
    tmp_path: Path, what: str, clips: list, make_talker
) -> None:
    import torch

    from fedtalk.federation.checkpoint import save_checkpoint

    talker = make_talker()
    writers = {
        "checkpoint": lambda: save_checkpoint(tmp_path / "last.ckpt", {"server": torch.zeros(10_000)}),
        "clip": lambda: clips[0].save(tmp_path / "clip.npz"),
        "codec": lambda: talker.backbone.save(tmp_path / "backbone"),
        "adapter": lambda: talker.save_adapter(tmp_path / "adapter"),
    }
    with _limited(2048), pytest.raises(OutputError, match=r"Free some space"):
        writers[what]()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 2048] == []
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_a_file_in_place_of_the_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(
        OutputError, match=r"cannot write .*expected a writable folder|cannot write .*Expected a writable"
    ):
        write_json(tmp_path / "runs" / "demo" / "value.json", 1)
    assert (tmp_path / "runs").read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write_json(tmp_path / "value.json", 1)
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_in_the_files_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "value.json").mkdir()
    with pytest.raises(OutputError, match="writing"):
        write_json(tmp_path / "value.json", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_killed_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    """SIGKILL, which no code can catch, between writing and renaming."""
    target = tmp_path / "value.json"
    target.write_text("old")
    script = (
        "import os, signal\nfrom fedtalk.storage import atomic_path\n"
        f"with atomic_path({str(target)!r}) as temporary:\n"
        "    temporary.write_text('new')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_what_killed_processes_left_is_removed_but_nothing_that_is_being_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    program = (
        "import os, sys\nfrom fedtalk.storage import atomic_path\n"
        "open_ones = [atomic_path(name) for name in sys.argv[1:]]\n[one.__enter__() for one in open_ones]\nos._exit(1)"
    )
    names = [str(tmp_path / name) for name in ("talk.mp4", "other.mp4", "a/talk.mp4")]
    subprocess.run([sys.executable, "-c", program, *names], check=False)
    assert len(list(tmp_path.rglob(".part-*"))) == 3
    remove_leftovers(tmp_path, "talk.mp4")
    assert len(list(tmp_path.rglob(".part-*"))) == 2
    with atomic_path(tmp_path / "talk.mp4") as temporary:
        temporary.write_text("half")
        remove_leftovers(tmp_path)
        assert list(tmp_path.rglob(".part-*")) == [temporary]
    assert (tmp_path / "talk.mp4").read_text() == "half"
