"""The table of what `fedtalk test` measures: one line a measure, each a pure function under a torchmetrics class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from fedtalk.evaluation import metrics
from fedtalk.evaluation.reading import Reading
from fedtalk.evaluation.syncnet import SPAN

HIGHER, LOWER, ONE = "higher is better", "lower is better", "1 is right"


class ClipMean(Metric):
    """Mean over clips of a function of a clip; states are summed over processes.

    >>> mean = ClipMean(float); mean.update(1.0); mean.update(4.0); float(mean.compute())
    2.5
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, function: Callable[..., float], **kwargs: Any) -> None:
        """
        Args:
            function: its arguments are those of `update`.
            kwargs: of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self.function = function
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, *arguments: Any, **named: Any) -> None:
        self.total += float(self.function(*arguments, **named))
        self.count += 1

    def compute(self) -> Tensor:
        return self.total / self.count


@dataclass(frozen=True)
class MetricSpec:
    """One measure of a generated clip."""

    name: str
    unit: str
    goal: str
    """`HIGHER`, `LOWER` or `ONE`."""
    values: tuple[float, float]
    """Least and largest value it can have."""
    function: Callable[[Reading], float]
    when: Callable[[Reading], bool] = lambda reading: True
    """Whether a reading has it: a clip under its own speech has no donor to follow."""
    source: str = ""

    def metric(self) -> ClipMean:
        """A fresh torchmetrics metric, updated with `Reading`."""
        return ClipMean(self.function)


def _moves(openness: np.ndarray, known: np.ndarray | None) -> bool:
    """Whether there is something to follow. A flat track is an error where it is known, and none where it was read."""
    return known is not None or float(np.ptp(openness)) > LEAST_MOTION


def _mouth_moves(reading: Reading) -> bool:
    return _moves(reading.true_openness, reading.clip.openness)


def _has_donor(reading: Reading) -> bool:
    return reading.donor is not None and _moves(reading.donor_openness, reading.donor.openness)


def _has_syncnet(reading: Reading) -> bool:
    return reading.reference.instruments.syncnet is not None and len(reading.frames) > SPAN


INFINITY = float("inf")
LEAST_MOTION = 1e-3
"""Range of an opening that was read, below which the mouth is still."""

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("psnr", "dB", HIGHER, (0, metrics.PSNR_CEILING), lambda r: metrics.psnr(r.clip.frames, r.frames)),
    MetricSpec("ssim", "", HIGHER, (-1, 1), lambda r: metrics.ssim(r.clip.frames, r.frames), source="Wang et al. 2004"),
    MetricSpec(
        "psnr_mouth", "dB", HIGHER, (0, metrics.PSNR_CEILING),
        lambda r: metrics.psnr_mouth(r.clip.frames, r.frames, r.clip.mouth, r.clip.eyes),
    ),
    MetricSpec(
        "mouth_corr", "", HIGHER, (-1, 1), lambda r: metrics.mouth_corr(r.openness, r.true_openness), _mouth_moves
    ),
    MetricSpec(
        "mouth_corr_donor", "", HIGHER, (-1, 1), lambda r: metrics.mouth_corr(r.openness, r.donor_openness), _has_donor
    ),
    MetricSpec(
        "mouth_distance", "inter-ocular", LOWER, (0, INFINITY),
        lambda r: metrics.mouth_distance(r.openness, r.true_openness),
    ),
    MetricSpec(
        "mouth_amplitude", "", ONE, (0, INFINITY), lambda r: metrics.mouth_amplitude(r.openness, r.true_openness),
        _mouth_moves,
    ),
    MetricSpec(
        "lip_leakage", "", LOWER, (0, INFINITY), lambda r: metrics.lip_leakage(r.openness, r.true_openness),
        lambda r: r.silent, "silent input, arXiv 2511.08613",
    ),
    MetricSpec(
        "landmark_distance", "inter-ocular", LOWER, (0, INFINITY),
        lambda r: metrics.landmark_distance(r.landmarks, r.reference.landmarks), source="Chen et al. 2018",
    ),
    MetricSpec(
        "mouth_landmark_distance", "inter-ocular", LOWER, (0, INFINITY),
        lambda r: metrics.mouth_landmark_distance(r.landmarks, r.reference.landmarks), source="Chen et al. 2018",
    ),
    MetricSpec(
        "identity", "cosine", HIGHER, (-1, 1),
        lambda r: metrics.identity(r.embeddings, r.reference.source_embeddings),
    ),
    MetricSpec("flicker", "", ONE, (0, INFINITY), lambda r: metrics.flicker(r.clip.frames, r.frames)),
    MetricSpec(
        "jitter", "", ONE, (0, INFINITY),
        lambda r: metrics.jitter(r.landmarks, 1.0) / max(metrics.jitter(r.reference.landmarks, 1.0), 1e-9),
    ),
    MetricSpec(
        "warping_error", "", ONE, (0, INFINITY),
        lambda r: metrics.warping_error(r.clip.frames, r.frames, r.reference.motion),
        source="Lai et al. 2018",
    ),
    MetricSpec(
        "sync", "cosine", HIGHER, (-1, 1),
        lambda r: r.reference.instruments.sync.score(r.frames, r.audio, r.clip.mouth, r.clip.eyes),  # type: ignore[union-attr]
        lambda r: r.reference.instruments.sync is not None,
    ),
    MetricSpec("lse_d", "", LOWER, (0, INFINITY), lambda r: r.lse[0], _has_syncnet, "Prajwal et al. 2020"),
    MetricSpec("lse_c", "", HIGHER, (0, INFINITY), lambda r: r.lse[1], _has_syncnet, "Prajwal et al. 2020"),
)  # fmt: skip
"""In the order in which tables show them."""


OF_SETS = {
    "mouth_corr_pooled": ("", HIGHER), "lpips": ("", LOWER), "fid": ("", LOWER), "kid": ("", LOWER), "frechet": ("", LOWER),
}  # fmt: skip
"""Unit and goal of measures of all clips together; ``frechet`` stands for all whose name begins with it."""


def unit_and_goal(measure: str) -> tuple[str, str]:
    """Of any measure in a table; empty for one that isn't known.

    >>> unit_and_goal("psnr"), unit_and_goal("frechet_dlib")
    (('dB', 'higher is better'), ('', 'lower is better'))
    """
    known = OF_SETS | {spec.name: (spec.unit, spec.goal) for spec in METRICS}
    return known.get(measure) or known.get(measure.partition("_")[0], ("", ""))


def score(reading: Reading) -> dict[str, float]:
    """All measures that a reading has, by name."""
    return {spec.name: spec.function(reading) for spec in METRICS if spec.when(reading)}
