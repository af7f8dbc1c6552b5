"""The table of measures: every one in its range for the truth and for controls, as torchmetrics see them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.encoders.sync import SyncScorer
from fedtalk.evaluation import pretrained
from fedtalk.evaluation.landmarks import LandmarkReader
from fedtalk.evaluation.openness import openness_probe
from fedtalk.evaluation.reading import GroundTruth, Instruments, Reading
from fedtalk.evaluation.recognisers import recogniser
from fedtalk.evaluation.specs import HIGHER, LOWER, METRICS, ClipMean, score


@pytest.fixture(scope="module")
def reference() -> GroundTruth:
    speaker = Speaker.draw(0, "public", 2000)
    instruments = Instruments(
        openness_probe("synthtalk"), recogniser("synthtalk"), LandmarkReader(), SyncScorer.shipped().eval()
    )
    return GroundTruth(make_clip(speaker, 0, 24, 64), make_clip(speaker, 1, 8, 64).window(0, 1), instruments)


@pytest.fixture(scope="module")
def donor():
    return make_clip(Speaker.draw(0, "public", 2001), 0, 24, 64)


def _own(reference: GroundTruth, frames: np.ndarray) -> Reading:
    return Reading(reference, frames, reference.clip.audio)


def test_values_lie_in_their_ranges_and_the_truth_is_best(reference: GroundTruth, donor) -> None:
    clip = reference.clip
    frozen = clip.frames[:1].repeat(len(clip), 0)
    noise = np.random.default_rng(0).normal(0, 25, clip.frames.shape)
    noisy = np.clip(clip.frames + noise, 0, 255).astype(np.uint8)
    truth = score(_own(reference, clip.frames))
    others = [score(_own(reference, frames)) for frames in (frozen, noisy)]
    swapped = score(Reading(reference, donor.frames, donor.audio, donor))
    silent = score(Reading(reference, frozen, np.zeros_like(clip.audio), silent=True))
    assert "mouth_corr_donor" in swapped and "mouth_corr_donor" not in truth
    assert "lip_leakage" in silent and "lip_leakage" not in truth
    for spec in METRICS:
        for values in (truth, *others, swapped, silent):
            assert spec.name not in values or spec.values[0] <= values[spec.name] <= spec.values[1], spec.name
        if spec.name in truth:
            for values in others:
                if spec.goal == HIGHER:
                    assert values[spec.name] <= truth[spec.name], spec.name
                elif spec.goal == LOWER:
                    error = 0.005 if spec.name == "mouth_distance" else 0.0  # the probe's own
                    assert values[spec.name] >= truth[spec.name] - error, spec.name
                else:
                    # How the probe reads the truth's amplitude is the probe's own error; it learned openness from real lips,
                    # whose 1 is a gap of 0.35 distances between the eyes, and SynthTalk's is 0.4.
                    assert abs(truth[spec.name] - 1) < (0.25 if spec.name == "mouth_amplitude" else 1e-9), spec.name
                    if values is others[0] or spec.name != "mouth_amplitude":  # noise doesn't move the lips
                        assert abs(values[spec.name] - 1) > abs(truth[spec.name] - 1), spec.name


def test_of_clips_that_do_not_know_their_opening_the_probe_reads_it(reference: GroundTruth, donor) -> None:
    """As of real people: the same probe for what was made and for the truth."""
    clip = replace(reference.clip, openness=None)
    unknown = GroundTruth(clip, reference.source, reference.instruments)
    truth = score(_own(unknown, clip.frames))
    assert (truth["mouth_corr"], truth["mouth_distance"], truth["mouth_amplitude"]) == (1.0, 0.0, 1.0)
    assert score(Reading(unknown, clip.frames, clip.audio, clip))["mouth_corr_donor"] == 1.0
    stranger = score(Reading(unknown, clip.frames, donor.audio, replace(donor, openness=None)))
    assert stranger["mouth_corr_donor"] < 0.9


def test_classes_are_means_of_the_functions_and_can_be_pickled(reference: GroundTruth) -> None:
    spec = next(spec for spec in METRICS if spec.name == "psnr_mouth")
    clip, metric = reference.clip, spec.metric()
    readings = [_own(reference, np.clip(clip.frames.astype(int) + add, 0, 255).astype(np.uint8)) for add in (3, 20)]
    for reading in readings:
        metric.update(reading)
    assert float(metric.compute()) == pytest.approx(np.mean([spec.function(reading) for reading in readings]))
    again = pickle.loads(pickle.dumps(ClipMean(abs)))
    again.update(-2.0)
    assert again.compute() == 2
    metric.reset()
    assert metric.count == 0


def test_classes_sum_over_processes() -> None:
    parts = [ClipMean(float), ClipMean(float)]
    for part, values in zip(parts, ([1.0, 2.0], [6.0]), strict=True):
        for value in values:
            part.update(value)
    both = ClipMean(float)
    both.update(0.0)  # or torchmetrics warns
    for name, reduce in both._reductions.items():
        setattr(both, name, reduce(torch.stack([getattr(part, name) for part in parts])))  # type: ignore[operator,misc]
    assert both.compute() == 3


def test_names_are_unique_and_described() -> None:
    assert len({spec.name for spec in METRICS}) == len(METRICS)
    assert all(spec.values[0] < spec.values[1] for spec in METRICS)


def test_measures_without_their_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert {"lpips", "fid", "kid"} <= pretrained.unavailable().keys()
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: object())
    assert pretrained.INCEPTION in pretrained.unavailable()["fid"]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / pretrained.INCEPTION).touch()
    assert "fid" not in pretrained.unavailable() and "lpips" in pretrained.unavailable()


def test_the_own_sync_network_has_its_held_out_accuracy() -> None:
    figures = SyncScorer.held_out_figures()
    assert set(figures) == {"unseen public people", "private people"}
    assert all(0.5 < row["offset_accuracy_window"] <= row["offset_accuracy"] <= 1 for row in figures.values())
