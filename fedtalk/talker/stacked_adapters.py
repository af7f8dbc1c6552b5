"""One batch for several clients: the frozen network is shared, each client's windows go through its own LoRA factors.

Clients' windows follow each other in the batch. The network folds frames or latent cells into the batch axis, but always
inside a window, so along the first axis of whatever reaches a layer the clients still follow each other in equal parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def own_factors(network: nn.Module, stacked: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the block, each of K clients' share of a batch goes through its own factors.

    Args:
        network: whose layers hold the factors, as peft has put them there.
        stacked: by the names of ``network``'s parameters, (K, *shape of one client's factor). Factors that are not named are
            the same for all.
    """
    changed: list[nn.Module] = []
    try:
        for name, factors in stacked.items():
            layer = network.get_submodule(name.removesuffix(".weight"))
            layer.forward = _forward(layer, factors)  # type: ignore[method-assign]
            changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.forward  # what lies beneath is the class's own


def _forward(layer: nn.Module, factors: Tensor) -> Callable[[Tensor], Tensor]:
    if isinstance(layer, nn.Linear):
        return lambda x: _linear(x, factors)
    if isinstance(layer, nn.Conv2d):
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            return lambda x: _pointwise(x, factors)
        return lambda x: _convolution(x, factors, layer)
    raise TypeError(f"expected LoRA factors of linear layers and 2D convolutions, got {type(layer).__name__}")


def _linear(x: Tensor, factors_Koi: Tensor) -> Tensor:
    """(K n, ..., i) -> (K n, ..., o)."""
    rows_Kni = x.reshape(len(factors_Koi), -1, x.shape[-1])
    return torch.bmm(rows_Kni, factors_Koi.transpose(1, 2)).view(*x.shape[:-1], -1)


def _pointwise(x: Tensor, factors_Koi11: Tensor) -> Tensor:
    """(K n, i, h, w) -> (K n, o, h, w)."""
    count, _, height, width = x.shape
    clients, outputs, inputs = factors_Koi11.shape[:3]
    cells = x.reshape(clients, count // clients, inputs, height * width)
    return (factors_Koi11.view(clients, 1, outputs, inputs) @ cells).view(count, outputs, height, width)


def _convolution(x: Tensor, factors_Koihw: Tensor, layer: nn.Conv2d) -> Tensor:
    """(K n, i, h, w) -> (K n, o, h', w'): a group of channels for each client."""
    clients, outputs = factors_Koihw.shape[:2]
    count, _, height, width = x.shape
    side_by_side = x.view(clients, count // clients, -1, height, width).transpose(0, 1).flatten(1, 2)
    answer = F.conv2d(
        side_by_side, factors_Koihw.flatten(0, 1), None, layer.stride, layer.padding, layer.dilation, clients
    )
    return answer.unflatten(1, (clients, outputs)).transpose(0, 1).flatten(0, 1)
