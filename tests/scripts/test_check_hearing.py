"""How well lips are heard: the figures of the model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fedtalk.data.synthtalk import Speaker, make_clip


def test_correlations_are_of_each_clip_with_its_own_track(
    load_script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    script, generator = load_script("check_hearing"), np.random.default_rng(0)
    heard = {}
    for name, flip in (("one", 1.0), ("two", -1.0)):
        clip = make_clip(Speaker.draw(0, "private", len(heard)), 0, 25, 32)
        (tmp_path / "clients" / name).mkdir(parents=True)
        (tmp_path / "tracks" / name).mkdir(parents=True)
        clip.save(tmp_path / "clients" / name / "clip.npz")
        columns = generator.random((25, 3))
        heard[len(clip.audio), round(float(np.abs(clip.audio).sum()), 1)] = columns
        np.savez(
            tmp_path / "tracks" / name / "clip.npz",
            opening=flip * columns[:, 0],
            width=columns[:, 1],
            jaw=-columns[:, 2],
        )

    def hear(audio: torch.Tensor) -> torch.Tensor:
        known = min(heard, key=lambda key: abs(key[1] - float(audio.abs().sum())))
        return torch.from_numpy(heard[known])

    found = script.people(hear, tmp_path / "clients", tmp_path / "tracks", ["one", "two"])
    assert found["one/clip"] == pytest.approx([1, 1, -1]) and found["two/clip"] == pytest.approx([-1, 1, -1])
    assert list(script.people(hear, tmp_path / "clients", tmp_path / "tracks", ["two"])) == ["two/clip"]


def test_the_shipped_network_hears_synthtalk_and_closes_lips_in_silence(
    load_script: Callable[[str], ModuleType],
) -> None:
    script = load_script("check_hearing")
    script.SPEAKERS = range(70, 72)
    shipped = script.synthtalk(script.heard_lips)
    assert shipped["opening"] > 0.95 and shipped["silence"] < 0.3
    deaf = script.synthtalk(lambda audio: script.heard_lips(audio.flip(0)))
    assert deaf["opening"] < 0.5 and deaf["silence"] > shipped["silence"]
