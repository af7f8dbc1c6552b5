"""The optimizer of a client's local steps, on whatever tensors a placement lets it work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedtalk.training.placement import Placement

LEAST_8BIT_SIZE = 1
"""Tensors of fewer numbers keep 32-bit moments; bitsandbytes' own 4096 would leave most LoRA factors in 32 bits."""
BETAS = (0.9, 0.99)


class LocalOptimizer:
    """AdamW, or plain SGD, over a module's exchanged parameters, or over what stands for them.

    It works on the parameters themselves, on a process's own shards of them (fsdp; same memory), or on copies in the
    machine's memory (``cpu_offload``): `values`, by name. A step is `zero_grad`, the backward pass, `collect`, whatever is to
    be done to the gradients of `values`, `step`.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float, placement: Placement
    ) -> None:
        """
        Args:
            parameters: what the gradients are of.
            learning_rate: at the start.
            weight_decay: AdamW's, or SGD's L2 term.
            placement: which optimizer, and whether it works in the machine's memory.
        """
        self._parameters = dict(parameters)
        self.values = {name: _stand_in(value, placement.cpu_offload) for name, value in parameters.items()}
        settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "betas": BETAS}
        # 8-bit kernels don't take empty tensors, which a process has of factors with fewer rows than processes.
        filled = [value for value in self.values.values() if value.numel()]
        self.inner: torch.optim.Optimizer
        if placement.optimizer == "adamw8bit" and filled:
            from bitsandbytes.optim import AdamW8bit

            self.inner = AdamW8bit(filled, min_8bit_size=LEAST_8BIT_SIZE, **settings)
        elif placement.optimizer == "sgd":
            self.inner = torch.optim.SGD(self.values.values(), lr=learning_rate, weight_decay=weight_decay)
        else:
            self.inner = torch.optim.AdamW(self.values.values(), **settings)

    def zero_grad(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    def collect(self) -> None:
        """Give `values` their gradients."""
        for name, value in self.values.items():
            gradient = self._parameters[name].grad
            if value is not self._parameters[name]:
                value.grad = None if gradient is None else local_part(gradient).to(value.device)

    def step(self, learning_rate: float) -> None:
        """One step by the gradients of `values`."""
        for group in self.inner.param_groups:
            group["lr"] = learning_rate
        self.inner.step()
        for name, value in self.values.items():
            own = local_part(self._parameters[name].detach())
            if own.data_ptr() != value.data_ptr():
                own.copy_(value.detach())


def _stand_in(parameter: nn.Parameter, offload: bool) -> nn.Parameter:
    own = local_part(parameter.detach())
    if offload:
        return nn.Parameter(own.cpu())
    return nn.Parameter(own) if hasattr(parameter, "to_local") else parameter


def local_part(value: Tensor) -> Tensor:
    """This process's part of a tensor: all of it, where it isn't sharded."""
    return value.to_local() if hasattr(value, "to_local") else value  # type: ignore[attr-defined]
