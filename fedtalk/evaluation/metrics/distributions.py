"""How far apart two sets of pictures are, by the distribution of their features."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from fedtalk.errors import ArtifactError


def frechet_distance(generated: np.ndarray, truth: np.ndarray) -> float:
    """Squared Frechet distance of two Gaussians fitted to features (Dowson and Landau 1982).

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``. With the features of an Inception network this is the FID
    (Heusel et al. 2017); with others it is not comparable with published FIDs, so report it with the features' name.

    Args:
        generated: (N, D) features, N at least 2.
        truth: (M, D).

    Returns:
        0 or more; 0 is right. It grows with fewer samples than dimensions: compare equal counts only.

    Raises:
        ArtifactError: other shapes.

    >>> points = np.random.default_rng(0).normal(size=(500, 3))
    >>> round(frechet_distance(points + (2.0, 0.0, 0.0), points), 6)
    4.0
    """
    if (
        generated.ndim != 2
        or truth.ndim != 2
        or generated.shape[1] != truth.shape[1]
        or min(len(generated), len(truth)) < 2
    ):
        raise ArtifactError(
            f"Frechet distance: expected features (N, D) and (M, D), at least two each, got {generated.shape} and {truth.shape}"
        )
    means = generated.mean(0) - truth.mean(0)
    one, other = np.cov(generated, rowvar=False), np.cov(truth, rowvar=False)
    # The product's eigenvalues are real and not negative, but for rounding.
    roots = np.sqrt(np.maximum(linalg.eigvals(np.atleast_2d(one) @ np.atleast_2d(other)).real, 0))
    return float(
        max(0.0, means @ means + np.trace(np.atleast_2d(one)) + np.trace(np.atleast_2d(other)) - 2 * roots.sum())
    )
