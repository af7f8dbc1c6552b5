"""Measures of motion, mouth and faces against independent implementations, and what they say of controls."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError
from fedtalk.evaluation import metrics


@pytest.fixture(scope="module")
def clip():
    return make_clip(Speaker.draw(0, "public", 2000), 0, 10, 64)


def _landmarks(seed: int, frames: int = 6) -> np.ndarray:
    points = np.random.default_rng(seed).normal(30, 5, (frames, 68, 2))
    points[:, 36:42] += (-10, 0)
    points[:, 42:48] += (10, 0)
    return points


def test_warping_error_follows_the_true_motion(clip) -> None:
    noisy = np.clip(clip.frames + np.random.default_rng(0).normal(0, 8, clip.frames.shape), 0, 255).astype(np.uint8)
    assert metrics.warping_error(clip.frames, clip.frames) == 1.0
    assert metrics.warping_error(clip.frames, noisy) > 2.0
    # One pair by hand, with scipy's interpolation and every pixel whose flows agree.
    flows = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    one, two = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames[:2])
    forward, backward = flows.calc(one, two, None), flows.calc(two, one, None)
    y, x = np.mgrid[:64, :64].astype(float)
    at = np.stack([np.clip(y + forward[..., 1], 0, 63), np.clip(x + forward[..., 0], 0, 63)])
    back = np.stack([map_coordinates(backward[..., c], at, order=1) for c in (0, 1)], -1)
    agree = np.hypot(*(forward + back).transpose(2, 0, 1)) <= 1

    def along(frames: np.ndarray) -> float:
        warped = np.stack([map_coordinates(frames[1, ..., c].astype(float), at, order=1) for c in range(3)], -1)
        return float(np.abs(warped - frames[0]).mean(-1)[agree].mean())

    expected = along(noisy) / along(clip.frames)
    assert metrics.warping_error(clip.frames[:2], noisy[:2]) == pytest.approx(expected, rel=0.1)


def test_landmark_distances_by_loops() -> None:
    made, true = _landmarks(0), _landmarks(1)
    every, mouth = [], []
    for f in range(6):
        unit = np.hypot(*(true[f, 42:48].mean(0) - true[f, 36:42].mean(0)))
        every += [np.hypot(*(made[f, p] - true[f, p])) / unit for p in range(68)]
        shift = made[f, 48:].mean(0) - true[f, 48:].mean(0)
        mouth += [np.hypot(*(made[f, p] - shift - true[f, p])) / unit for p in range(48, 68)]
    assert metrics.landmark_distance(made, true) == pytest.approx(np.mean(every))
    assert metrics.mouth_landmark_distance(made, true) == pytest.approx(np.mean(mouth))
    assert metrics.landmark_distance(2 * made, 2 * true) == pytest.approx(np.mean(every)), "free of the picture's size"


def test_landmarks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"\(F, 68, 2\)"):
        metrics.landmark_distance(_landmarks(0)[:, :60], _landmarks(0))
    still = np.zeros((2, 68, 2))
    with pytest.raises(ArtifactError, match="one place"):
        metrics.mouth_landmark_distance(still, still)


def test_frechet_distance_is_torchmetrics_for_the_same_features() -> None:
    class Given(torch.nn.Module):
        num_features = 6

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.flatten(1)[:, :6].double()

    generator = np.random.default_rng(0)
    made = generator.normal(0.3, 1.5, (60, 6))
    true = generator.normal(0, 1, (80, 6)) @ generator.normal(0, 1, (6, 6))
    library = FrechetInceptionDistance(feature=Given(), input_img_size=(3, 1, 2))
    library.set_dtype(torch.float64)
    for features, real in ((made, False), (true, True)):
        library.update(torch.from_numpy(features).view(-1, 3, 1, 2), real=real)
    assert metrics.frechet_distance(made, true) == pytest.approx(float(library.compute()), rel=1e-4)
    assert metrics.frechet_distance(true, true) == pytest.approx(0, abs=1e-6)


def test_leakage_is_of_a_mouth_that_moves_without_sound() -> None:
    truth = np.abs(np.sin(np.linspace(0, 12, 100)))
    assert metrics.lip_leakage(np.full(100, np.quantile(truth, 0.05)), truth) == pytest.approx(0)
    assert metrics.lip_leakage(np.full(100, np.quantile(truth, 0.95)), truth) == pytest.approx(1)
    assert 0.4 < metrics.lip_leakage(truth, truth) < 0.8
    assert metrics.lip_leakage(np.full(100, -1.0), truth) == 0


def test_amplitude_tells_freezing_from_exaggeration() -> None:
    truth = np.random.default_rng(0).random(40)
    assert metrics.mouth_amplitude(truth, truth) == 1
    assert metrics.mouth_amplitude(np.full(40, 0.3), truth) == pytest.approx(0, abs=1e-12)
    assert metrics.mouth_amplitude(2 * truth + 1, truth) == pytest.approx(2)
    with pytest.raises(ArtifactError, match="does not move"):
        metrics.mouth_amplitude(truth, np.full(40, 0.3))
    assert metrics.mouth_distance(truth + 0.1, truth) == pytest.approx(0.1)


def test_picture_measures_are_torchmetrics(clip) -> None:
    made = np.clip(clip.frames + np.random.default_rng(0).normal(0, 12, clip.frames.shape), 0, 255).astype(np.uint8)
    true, generated = (torch.from_numpy(frames).permute(0, 3, 1, 2).double() for frames in (clip.frames, made))
    decibels = peak_signal_noise_ratio(generated, true, data_range=255.0, dim=(1, 2, 3), reduction="elementwise_mean")
    assert metrics.psnr(clip.frames, made) == pytest.approx(float(decibels))
    _, full = structural_similarity_index_measure(
        generated, true, gaussian_kernel=True, sigma=1.5, data_range=255.0, return_full_image=True
    )
    assert metrics.ssim(clip.frames, made) == pytest.approx(float(full.mean()), abs=1e-6)


def test_the_bootstrap_of_eight_speakers_holds_less_than_it_says() -> None:
    """As its docstring says: 90 % of cases for eight speakers, the default of `fedtalk test`."""
    generator = np.random.default_rng(0)
    held = []
    for trial in range(400):
        _, low, high = metrics.bootstrap_interval(generator.normal(size=8), np.arange(8), samples=500, seed=trial)
        held.append(low <= 0 <= high)
    assert 0.86 < np.mean(held) < 0.94
