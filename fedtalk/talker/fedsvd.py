"""FedSVD: clients train B alone, on an A that follows what B has learned.

After "FedSVD: Adaptive Orthogonalization for Private Federated Learning with LoRA" (arXiv 2505.12805): between rounds the
product of the released factors is written anew by its singular value decomposition,

    B A = U S V^T        B' = U S,   A' = V^T        with V^T V = I

so that A' has orthonormal rows, the most important direction first, and the gradient of B' is never longer than that of the
product. B alone is noised, so noise is never multiplied by noise.

It is arithmetic on what a round has released already, the sum under secure aggregation and noise: post-processing, which
costs no epsilon and needs no single client's factors. And it is arithmetic that everybody can do: with orthonormal rows in A,
and B = U S W^T by itself, the new factors are B W and W^T A. So state, sums, checkpoints and released adapters stay in the
factors of the first round, here called the common ones; every client turns what it was sent by W, trains, and turns back what
it sends. Turning keeps lengths, hence the clipping bound; and whichever signs or order another machine's W has, it cancels.

What can't be hoped for: A is only ever turned within its first row space, since clients don't train it. Plain gradient steps
on B are the same in all factors (turning commutes with them); it is AdamW, whose steps go along the axes, that gains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtalk.errors import ConfigurationError


@dataclass(frozen=True)
class Factors:
    """The two factors of an adapted layer."""

    name: str
    """Of B, as it is exchanged."""
    a: nn.Parameter
    """(rank, in) or, of a convolution, (rank, in, height, width)."""
    b: nn.Parameter
    """(out, rank) or (out, rank, 1, 1)."""


def factors_of(adapter_parameters: Mapping[str, nn.Parameter]) -> list[Factors]:
    """The factors of every layer, from LoRA parameters by name."""
    return [
        Factors(name, adapter_parameters[name.replace(".lora_B.", ".lora_A.")], value)
        for name, value in adapter_parameters.items()
        if ".lora_B." in name
    ]


@torch.no_grad()
def orthonormalise(layers: Sequence[Factors]) -> None:
    """Give A orthonormal rows, in place, in double precision: A = (L Q) -> Q.

    Raises:
        ConfigurationError: a layer has fewer inputs than the rank.
    """
    for layer in layers:
        flat = layer.a.double().flatten(1)
        if len(flat) > flat.shape[1]:
            raise ConfigurationError(
                f"adapter.rank: with fedsvd expected at most {flat.shape[1]}, the inputs of {layer.name}, got {len(flat)}; "
                "lower it, or leave the layer out of adapter.targets"
            )
        layer.a.copy_(torch.linalg.qr(flat.T).Q.T.reshape(layer.a.shape))


def turn(b: Tensor) -> Tensor:
    """W (rank, rank) float64, orthogonal: B W has orthogonal columns, the longest first.

    The right singular vectors of B, as eigenvectors of B^T B, whose size is the rank's.

    Args:
        b: (out, rank) or (out, rank, 1, 1).
    """
    flat = b.detach().cpu().double().flatten(1)
    return torch.linalg.eigh(flat.T @ flat).eigenvectors.flip(1)


@contextmanager
def refactored(layers: Sequence[Factors]) -> Iterator[Callable[[dict[str, Tensor]], dict[str, Tensor]]]:
    """Inside the block, A and B are those of the decomposition; after it A is the common one again.

    Yields:
        what turns copies of the exchanged parameters, made inside the block, back to the common factors.
    """
    first = [layer.a.detach().clone() for layer in layers]
    turns = {layer.name: turn(layer.b) for layer in layers}
    try:
        with torch.no_grad():
            for layer in layers:
                w = turns[layer.name].to(layer.a.device)
                layer.a.copy_((w.T @ layer.a.double().flatten(1)).reshape(layer.a.shape))
                layer.b.copy_((layer.b.double().flatten(1) @ w).reshape(layer.b.shape))
        yield lambda state: {name: _turned_back(value, turns[name]) for name, value in state.items()}
    finally:
        with torch.no_grad():
            for layer, a in zip(layers, first, strict=True):
                layer.a.copy_(a)


def _turned_back(b: Tensor, w: Tensor) -> Tensor:
    return (b.double().flatten(1) @ w.T.to(b.device)).reshape(b.shape).to(b.dtype)
