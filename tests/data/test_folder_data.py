"""Clients on disk: the end of every source is held out to the frame, and caches can't be stale."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip
from fedtalk.data.folder_data import FolderData
from fedtalk.data.source import ClipSource, PreparedCache
from fedtalk.errors import ArtifactError, ConfigurationError


def _clip(first: int, count: int, size: int = 32, **info: object) -> Clip:
    """Frames that carry their own number in the source, so that nothing can be mixed up."""
    numbers = np.arange(first, first + count)
    frames = np.broadcast_to(numbers[:, None, None, None], (count, size, size, 3)).astype(np.uint8)
    audio = np.repeat(numbers / 1000, SAMPLES_PER_FRAME).astype(np.float32)
    points = np.full((count, 2, 2), 4, np.float32)
    return Clip(np.ascontiguousarray(frames), audio, points, points[:, 0], None, info)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """anna: two sources, one cut into three clips; bert: one whole clip; and things that are no client."""
    root = tmp_path / "clients"
    for index, start in enumerate((0, 50, 100)):
        _clip(start, 50, source="a.mp4", start=start / 25).save(root / "anna" / f"clip-{index:04d}.npz")
    _clip(0, 60, source="b.mp4", start=0.0).save(root / "anna" / "clip-0003.npz")
    _clip(0, 45, source="c.mp4", start=0.0).save(root / "bert" / "clip-0000.npz")
    (root / "rejects.csv").write_text("")
    (root / "empty").mkdir()
    return root


def _frames(sources: list[ClipSource]) -> list[tuple[str, int, int]]:
    clips = [source.load() for source in sources]
    for clip in clips:  # sound and picture were cut together
        assert np.allclose(clip.audio[::640] * 1000, clip.frames[:, 0, 0, 0], atol=0.1)
    return [(str(clip.info["source"]), int(clip.frames[0, 0, 0, 0]), int(clip.frames[-1, 0, 0, 0])) for clip in clips]


def test_the_end_of_every_source_is_held_out(root: Path) -> None:
    data = FolderData(str(root), held_out_seconds=1.0, size=32)
    assert data.clients == ["anna", "bert"]
    assert _frames(data.training_clips("anna")) == [("a.mp4", 0, 49), ("a.mp4", 50, 99), ("a.mp4", 100, 124),
                                                    ("b.mp4", 0, 34)]  # fmt: skip
    assert _frames(data.held_out_clips("anna")) == [("a.mp4", 125, 149), ("b.mp4", 35, 59)]
    assert _frames(data.training_clips("bert")) == [("c.mp4", 0, 19)]
    assert _frames(data.held_out_clips("bert")) == [("c.mp4", 20, 44)]


@pytest.mark.parametrize("seconds", [0.36, 0.7, 1.0, 1.3])
def test_no_held_out_frame_is_trained_on_and_none_before_it_is_held_out(root: Path, seconds: float) -> None:
    data = FolderData(str(root), held_out_seconds=seconds, size=32)
    for client in data.clients:
        for source in {name for name, _, _ in _frames(data.training_clips(client))}:
            trained = max(last for name, _, last in _frames(data.training_clips(client)) if name == source)
            held = min(first for name, first, _ in _frames(data.held_out_clips(client)) if name == source)
            assert trained < held
            end = {"a.mp4": 150, "b.mp4": 60, "c.mp4": 45}[source]
            assert held == end - round(seconds * 25)


def test_a_held_out_part_may_span_clips(root: Path) -> None:
    (root / "bert" / "clip-0000.npz").unlink()
    _clip(150, 20, source="a.mp4", start=6.0).save(root / "anna" / "clip-0009.npz")
    data = FolderData(str(root), held_out_seconds=1.6, size=32)
    assert [part for part in _frames(data.held_out_clips("anna")) if part[0] == "a.mp4"] == [
        ("a.mp4", 130, 149), ("a.mp4", 150, 169),
    ]  # fmt: skip


def test_videos_too_short_to_divide_are_named(root: Path) -> None:
    with pytest.raises(ArtifactError, match="client bert has no training clips: its videos are too short"):
        FolderData(str(root), held_out_seconds=1.7, size=32)


def test_wrong_folders_and_settings_are_clear_errors(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="none does not exist; make it with `fedtalk prepare"):
        FolderData(str(tmp_path / "none"))
    (tmp_path / "nobody").mkdir()
    with pytest.raises(ArtifactError, match="holds no client with clips"):
        FolderData(str(tmp_path / "nobody"))
    with pytest.raises(ConfigurationError, match=r"data\.held_out_seconds: expected at least 0.36"):
        FolderData(str(root), held_out_seconds=0.2)


def test_a_clip_of_another_size_is_refused_at_the_start(root: Path) -> None:
    """Whatever lies in a cache: sizes are read from the clips themselves, and of all clients that are opened."""
    with pytest.raises(ArtifactError, match=r"has 32 px frames, data\.size is 64; prepare again with --size 64"):
        FolderData(str(root), size=64)
    _clip(0, 45, 48, source="c.mp4", start=0.0).save(root / "bert" / "clip-0000.npz")
    with pytest.raises(ArtifactError, match=r"bert.*has 48 px frames, data\.size is 32"):
        FolderData(str(root), size=32)


def test_what_other_programs_leave_is_no_clip_and_no_client(root: Path) -> None:
    for name in (
        "anna/._clip-0000.npz",
        "anna/.part-clip-0000-x.npz",
        ".prepare/0f.npz",
        "@eaDir/x.npz",
        "#recycle/x.npz",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"nothing of ours")
    os.mkdir(os.fsencode(root) + b"/jos\xe9")
    with open(os.fsencode(root) + b"/jos\xe9/x.npz", "wb"):
        pass
    data = FolderData(str(root), size=32)
    assert data.clients == ["anna", "bert"] and len(data.training_clips("anna")) == 4


def test_of_many_clients_only_the_first_are_opened_at_the_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedtalk.data import folder_data

    opened = []
    facts = Clip.facts
    monkeypatch.setattr(folder_data, "CHECKED", 1)
    monkeypatch.setattr(Clip, "facts", lambda path: opened.append(path.parent.name) or facts(path))
    data = FolderData(str(root), held_out_seconds=1.7, size=32)  # too much for bert, who is not looked at
    assert data.clients == ["anna", "bert"] and set(opened) == {"anna"}
    with pytest.raises(ArtifactError, match="client bert has no training clips"):
        data.training_clips("bert")
    before = len(opened)
    assert data.training_clips("anna") and data.held_out_clips("anna") and len(opened) == before


def test_a_damaged_clip_is_named(root: Path) -> None:
    path = root / "anna" / "clip-0001.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ArtifactError, match=r"clip-0001\.npz can't be read"):
        FolderData(str(root), size=32)


def test_a_changed_file_has_another_key(root: Path) -> None:
    def keys() -> list[str]:
        return [source.key for source in FolderData(str(root), size=32).training_clips("anna")]

    before = keys()
    assert before == keys() and len(set(before)) == 4
    _clip(0, 50, source="a.mp4", start=0.0, again=True).save(root / "anna" / "clip-0000.npz")
    os.utime(root / "anna" / "clip-0000.npz", ns=(1, 1))
    assert [one != other for one, other in zip(before, keys(), strict=True)] == [True, False, False, False]


class _Preparer:
    """Counts how often it prepares."""

    key = "one"

    def __init__(self) -> None:
        self.count = 0

    def cache_key(self) -> str:
        return self.key

    def prepare_clip(self, clip: Clip) -> dict[str, torch.Tensor]:
        self.count += 1
        return {"first": torch.tensor(float(clip.frames[0, 0, 0, 0])), "many": torch.ones(3, dtype=torch.half)}


def test_prepared_clips_are_made_once_and_reread(root: Path, tmp_path: Path) -> None:
    sources = FolderData(str(root), size=32).training_clips("anna")
    module = _Preparer()
    first = PreparedCache(tmp_path / "cache").get(module, sources)  # type: ignore[arg-type]
    again = PreparedCache(tmp_path / "cache").get(module, sources)  # type: ignore[arg-type]
    assert module.count == 4
    assert [float(clip["first"]) for clip in again] == [0, 50, 100, 0] == [float(clip["first"]) for clip in first]
    assert again[0]["many"].dtype == torch.half


def test_another_module_does_not_read_its_predecessors_clips(root: Path, tmp_path: Path) -> None:
    sources = FolderData(str(root), size=32).training_clips("bert")
    module = _Preparer()
    cache = PreparedCache(tmp_path / "cache")
    cache.get(module, sources)  # type: ignore[arg-type]
    module.key = "two"
    cache.get(module, sources)  # type: ignore[arg-type]
    assert module.count == 2


def test_a_damaged_cache_file_is_made_again(root: Path, tmp_path: Path) -> None:
    sources = FolderData(str(root), size=32).training_clips("bert")
    module = _Preparer()
    PreparedCache(tmp_path / "cache").get(module, sources)  # type: ignore[arg-type]
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:10])
    assert float(PreparedCache(tmp_path / "cache").get(module, sources)[0]["first"]) == 0.0  # type: ignore[arg-type]
    assert module.count == 2


def test_all_clips_can_lie_in_one_place_and_tables_are_of_the_same_people(root: Path) -> None:
    pooled, apart = (
        FolderData(str(root), size=32, unreliable=0.5, faults=["flicker"], centralised=c) for c in (True, False)
    )
    assert pooled.clients == ["public"] and pooled.unreliable_clients == [] and pooled.typical_client == "public"
    assert pooled.evaluation_clients == apart.evaluation_clients == ["anna"]

    def keys(sources: Sequence[ClipSource]) -> list[str]:
        return [source.key for source in sources]

    everybody = [source for client in apart.clients for source in apart.training_clips(client)]
    assert keys(pooled.training_clips("public")) == keys(everybody)  # the faulty client's too, as it holds them
    assert keys(pooled.held_out_clips("anna")) == keys(apart.held_out_clips("anna"))
    (root / "bert").rename(root / "public")
    with pytest.raises(ConfigurationError, match=r"data.centralised: its one client is named 'public', and so is"):
        FolderData(str(root), size=32, centralised=True)
