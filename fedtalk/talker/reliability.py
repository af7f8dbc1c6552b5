"""How far a client can be relied on: identity consistency and temporal stability, measured on its own clips."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def identity_and_stability(
    frames_BF3HW: Tensor, known_N3HW: Tensor, encoder: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """Identity consistency and temporal stability of estimated frames, both in [0, 1].

    Identity: mean cosine of embeddings between estimated and known frames, clipped to [0, 1]. Stability: ``exp(-j / 0.05)``,
    where j is the mean absolute second difference in time of the estimated frames (grey levels in [0, 1]). Strangers among
    the clips lower the first, flicker the second; blur and late audio agree with themselves and lower neither.

    Args:
        frames_BF3HW: estimated frames in [-1, 1].
        known_N3HW: frames that say who the client is, in [-1, 1].
        encoder: pictures to embeddings of length 1.
    """
    embedded, own = encoder(frames_BF3HW.flatten(0, 1)), encoder(known_N3HW)
    identity = float((embedded @ own.T).mean().clamp(0, 1))
    grey = frames_BF3HW.mean(2) / 2
    jitter = float(grey.diff(dim=1).diff(dim=1).abs().mean())
    return identity, float(torch.exp(torch.tensor(-jitter / 0.05)))
