"""Metrics against brute force, other libraries and what they must say of the truth and of a frozen picture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr

from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError
from fedtalk.evaluation import metrics
from fedtalk.evaluation.recognisers import recogniser


def _noisy(frames: np.ndarray, level: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, level, frames.shape)
    return np.clip(np.round(frames + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip():
    return make_clip(Speaker.draw(0, "public", 2000), 0, 12, 64)


def test_psnr_is_the_mean_over_frames(clip) -> None:
    generated = _noisy(clip.frames, 9.0)
    generated[3] = _noisy(clip.frames[3], 40.0)
    expected = []
    for true, made in zip(clip.frames.astype(int), generated.astype(int), strict=True):
        expected.append(20 * np.log10(255) - 10 * np.log10(np.mean((true - made) ** 2)))
    assert metrics.psnr(clip.frames, generated) == pytest.approx(np.mean(expected))
    assert metrics.psnr(clip.frames, clip.frames) == metrics.PSNR_CEILING


def test_ssim_is_that_of_the_paper(clip) -> None:
    generated = _noisy(clip.frames, 12.0)
    # Wang et al. 2004 by hand: sigma 1.5, 11 pixels, K1 0.01, K2 0.03, borders mirrored.
    values = []
    for channel in range(3):
        for true, made in zip(clip.frames[..., channel], generated[..., channel], strict=True):
            x, y = true.astype(float), made.astype(float)
            mean = lambda a: gaussian_filter(a, 1.5, mode="mirror", truncate=5 / 1.5)  # noqa: E731
            mx, my = mean(x), mean(y)
            vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            full = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
            values.append(full.mean())
    assert metrics.ssim(clip.frames, generated) == pytest.approx(np.mean(values), abs=2e-3)
    assert metrics.ssim(clip.frames, clip.frames) == pytest.approx(1.0)


def test_mouth_psnr_reads_the_box_and_nothing_else(clip) -> None:
    unit = np.linalg.norm(clip.eyes[:, 1] - clip.eyes[:, 0], axis=1)
    inside = clip.frames.copy()
    squares = []
    for f in range(len(clip)):
        total, pixels = 0.0, 0
        for y in range(64):
            for x in range(64):
                if (abs(x + 0.5 - clip.mouth[f, 0]) <= 0.6 * unit[f]
                        and abs(y + 0.5 - clip.mouth[f, 1]) <= 0.475 * unit[f]):  # fmt: skip
                    changed = int(inside[f, y, x, 1]) ^ (8 + f)
                    total += (changed - int(inside[f, y, x, 1])) ** 2
                    inside[f, y, x, 1] = changed
                    pixels += 3
        squares.append(10 * np.log10(255**2 / (total / pixels)))
    assert metrics.psnr_mouth(clip.frames, inside, clip.mouth, clip.eyes) == pytest.approx(np.mean(squares))
    outside = np.where(inside == clip.frames, 255 - clip.frames, clip.frames)
    outside[..., [0, 2]] = np.where((inside != clip.frames)[..., 1:2], clip.frames, outside)[..., [0, 2]]
    assert metrics.psnr_mouth(clip.frames, outside, clip.mouth, clip.eyes) == metrics.PSNR_CEILING


def test_a_mouth_at_the_border_is_cut_and_one_outside_refused(clip) -> None:
    low = clip.mouth.copy()
    low[:, 1] = 63.0
    assert metrics.psnr_mouth(clip.frames, _noisy(clip.frames, 5.0), low, clip.eyes) == pytest.approx(34.2, abs=1.0)
    with pytest.raises(ArtifactError, match="outside of the frame"):
        metrics.psnr_mouth(clip.frames, clip.frames, low + 100, clip.eyes)


def test_pooled_mouth_correlation_is_pearsons_of_clips_without_their_means() -> None:
    draws = np.random.default_rng(0)
    clips = [(draws.random(9), draws.random(9)), (3 + draws.random(20), draws.random(20))]
    expected = pearsonr(
        *(np.concatenate([track - track.mean() for track in side]) for side in zip(*clips, strict=True))
    ).statistic
    assert metrics.pooled_mouth_corr(clips) == pytest.approx(expected)
    still = (0.5 + 1e-4 * draws.random(30), 0.5 + 1e-4 * draws.random(30))
    assert metrics.pooled_mouth_corr([*clips, still]) == pytest.approx(expected, abs=1e-4)  # lips that rest say nothing
    assert metrics.pooled_mouth_corr([clips[0]]) == pytest.approx(metrics.mouth_corr(*clips[0]))
    assert metrics.pooled_mouth_corr([(np.zeros(4), np.arange(4.0))]) == 0.0
    with pytest.raises(ArtifactError, match="at least one clip"):
        metrics.pooled_mouth_corr([])


def test_mouth_correlation_is_pearsons(clip) -> None:
    track = np.random.default_rng(1).random(30)
    truth = 0.4 * track + np.random.default_rng(2).random(30)
    assert metrics.mouth_corr(track, truth) == pytest.approx(pearsonr(track, truth).statistic)
    assert metrics.mouth_corr(1 - truth, truth) == pytest.approx(-1.0)


@pytest.mark.parametrize("level", [0.0, 0.1, 1 / 3])
def test_a_frozen_mouth_follows_nothing(level: float) -> None:
    truth = np.random.default_rng(0).random(20)
    # Not exactly constant: rounding must not become a correlation.
    frozen = np.full(20, level, np.float32) + 1e-8 * truth
    assert metrics.mouth_corr(frozen, truth) == 0.0


def test_undefined_correlations_are_errors() -> None:
    track = np.random.default_rng(0).random(20)
    with pytest.raises(ArtifactError, match="does not move"):
        metrics.mouth_corr(track, np.full(20, 0.2))
    with pytest.raises(ArtifactError, match="finite"):
        metrics.mouth_corr(np.where(np.arange(20) == 4, np.nan, track), track)
    with pytest.raises(ArtifactError, match="one length"):
        metrics.mouth_corr(track[:-1], track)


def test_flicker_rewards_neither_freezing_nor_flickering(clip) -> None:
    frozen = clip.frames[:1].repeat(len(clip), 0)
    assert metrics.flicker(clip.frames, clip.frames) == 1.0
    assert metrics.flicker(clip.frames, frozen) == 0.0
    assert metrics.flicker(clip.frames, _noisy(clip.frames, 10.0)) > 1.5
    with pytest.raises(ArtifactError, match="moves"):
        metrics.flicker(frozen, clip.frames)


def test_jitter_is_the_second_difference() -> None:
    points = np.random.default_rng(0).normal(0, 1, (9, 4, 2))
    expected = [
        np.hypot(*(points[f + 1, p] - 2 * points[f, p] + points[f - 1, p])) for f in range(1, 8) for p in range(4)
    ]
    assert metrics.jitter(points, 5.0) == pytest.approx(np.mean(expected) / 5)


def test_clips_of_unlike_shape_are_refused(clip) -> None:
    for metric in (metrics.psnr, metrics.ssim, metrics.flicker):
        with pytest.raises(ArtifactError, match="one shape"):
            metric(clip.frames, clip.frames[:-1])
        with pytest.raises(ArtifactError, match="uint8"):
            metric(clip.frames, clip.frames.astype(np.float32))


def test_identity_tells_people_apart(clip) -> None:
    embedder = recogniser("synthtalk")
    again = make_clip(Speaker.draw(0, "public", 2000), 1, 8, 64)
    other = make_clip(Speaker.draw(0, "public", 2001), 0, 8, 64)

    own, same, stranger = (embedder.embed(one.frames, one.eyes, one.mouth) for one in (clip, again, other))
    assert metrics.identity(same, own) > 0.85
    assert metrics.identity(stranger, own) < 0.6
    pairs = [float(a @ b) for a in stranger for b in own]
    assert metrics.identity(stranger, own) == pytest.approx(np.mean(pairs), abs=1e-5)
    for wrong, said in (
        (own[:0], "expected embeddings"),
        (own[:, :3], "expected embeddings"),
        (2 * own, "unit length"),
    ):
        with pytest.raises(ArtifactError, match=said):
            metrics.identity(wrong, own)


def test_bootstrap_draws_speakers_and_not_clips() -> None:
    generator = np.random.default_rng(0)
    speaker = np.repeat(np.arange(12), 10)
    effect = generator.normal(0.5, 1.0, 12)[speaker] + generator.normal(0, 0.01, 120)
    mean, low, high = metrics.bootstrap_interval(effect, speaker)
    assert mean == pytest.approx(effect.mean())
    # Equally many clips each: the interval is that of the twelve speakers' means.
    means = effect.reshape(12, 10).mean(1)
    error = means.std() / np.sqrt(12)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.1)
    by_clip = metrics.bootstrap_interval(effect, np.arange(120))
    assert (high - low) > 2.5 * (by_clip[2] - by_clip[1])
    assert metrics.bootstrap_interval(effect, speaker) == (mean, low, high)
    assert metrics.bootstrap_interval(effect, speaker, seed=1) != (mean, low, high)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        values = generator.normal(1.0, 1.0, 30)
        _, low, high = metrics.bootstrap_interval(values, np.arange(30), confidence=0.8, samples=500, seed=trial)
        covered += low <= 1.0 <= high
    assert 0.70 <= covered / 200 <= 0.88


def test_one_speaker_has_no_interval() -> None:
    with pytest.raises(ArtifactError, match="two speakers"):
        metrics.bootstrap_interval([0.1, 0.2], ["anna", "anna"])
    with pytest.raises(ArtifactError, match="finite"):
        metrics.bootstrap_interval([0.1, np.nan], ["anna", "bert"])
