"""A named set of tensors as one flat vector and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def flatten(state: Mapping[str, Tensor]) -> np.ndarray:
    """(d,) float64, tensors in the mapping's order."""
    return np.concatenate([value.detach().cpu().reshape(-1).double().numpy() for value in state.values()])


def unflatten(vector: np.ndarray, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a vector into tensors of the shapes and types of those of ``like``.

    >>> like = {"a": torch.zeros(2, 2), "b": torch.zeros(3)}
    >>> unflatten(flatten(like), like).keys() == like.keys()
    True
    """
    state, start = {}, 0
    for name, value in like.items():
        part = torch.from_numpy(vector[start : start + value.numel()])
        state[name] = part.reshape(value.shape).to(value.dtype)
        start += value.numel()
    return state
