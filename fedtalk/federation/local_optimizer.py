"""The optimizer of a client's local steps, on whatever tensors a placement lets it work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedtalk.federation.placement import Placement

LEAST_8BIT_SIZE = 1
"""Tensors of fewer numbers keep 32-bit moments; bitsandbytes' own 4096 would leave most LoRA factors in 32 bits."""
BETAS = (0.9, 0.99)


class LocalOptimizer:
    """AdamW over a module's exchanged parameters, or over what stands for them.

    It works on the parameters themselves, on a process's own shards of them (fsdp; same memory), or on copies in the
    machine's memory (``cpu_offload``).
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float, placement: Placement
    ) -> None:
        """
        Args:
            parameters: what the gradients are of.
            learning_rate: at the start.
            weight_decay: AdamW's.
            placement: which optimizer, and whether it works in the machine's memory.
        """
        self._parameters = list(parameters.values())
        self._offload = placement.cpu_offload
        self._optimized = [self._stand_in(parameter) for parameter in self._parameters]
        settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "betas": BETAS}
        # 8-bit kernels don't take empty tensors, which a process has of factors with fewer rows than processes.
        filled = [value for value in self._optimized if value.numel()]
        self.inner: torch.optim.Optimizer
        if placement.optimizer == "adamw8bit" and filled:
            from bitsandbytes.optim import AdamW8bit

            self.inner = AdamW8bit(filled, min_8bit_size=LEAST_8BIT_SIZE, **settings)
        else:
            self.inner = torch.optim.AdamW(self._optimized, **settings)

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, learning_rate: float) -> None:
        """One step by the parameters' gradients."""
        for group in self.inner.param_groups:
            group["lr"] = learning_rate
        pairs = [(p, o) for p, o in zip(self._parameters, self._optimized, strict=True) if p is not o]
        for parameter, optimized in pairs:
            gradient = parameter.grad
            optimized.grad = None if gradient is None else _local(gradient).to(optimized.device)
        self.inner.step()
        with torch.no_grad():
            for parameter, optimized in pairs:
                own = _local(parameter.detach())
                if own.data_ptr() != optimized.data_ptr():
                    own.copy_(optimized)

    def _stand_in(self, parameter: nn.Parameter) -> nn.Parameter:
        if not self._offload and not hasattr(parameter, "to_local"):
            return parameter
        own = _local(parameter.detach())
        return nn.Parameter(own.cpu() if self._offload else own)


def _local(value: Tensor) -> Tensor:
    """This process's part of a tensor."""
    return value.to_local() if hasattr(value, "to_local") else value  # type: ignore[attr-defined]
