"""What all workers of a fit are told once, packed so that a machine has the frozen network in memory once.

Large frozen parameters travel apart from the rest, as arrays, which Ray's object store maps into every process of a machine; they
can be read there and not written. All else is pickled, and each process has its own.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedtalk.callbacks.aggregation import FedAvg
from fedtalk.data.source import PreparedCache
from fedtalk.federation.federation import Federation

LEAST_BYTES = 1024**2
"""Of a frozen parameter that travels apart; smaller ones cost little, and a round may rewrite an adapter's frozen factors."""


@dataclass(frozen=True)
class Packed:
    """A `Federation` on its way."""

    content: bytes
    frozen: list[np.ndarray]
    """Bytes of the frozen parameters, 1-d uint8 each."""
    folder: str
    """Where the main process works; relative paths in the config start there."""
    path: list[str]
    """Where it finds modules."""

    def open(self) -> Federation:
        """In a worker: the federation, with all frozen parameters where the object store has them."""
        sys.path += [place for place in self.path if place not in sys.path]
        with suppress(OSError):  # another machine may have no such folder; then paths are absolute
            os.chdir(self.folder)
        return pickle.loads(self.content, buffers=self.frozen)


def pack(federation: Federation) -> Packed:
    """What workers need of a federation: how updates are weighed and summed, and what is promised, is the main process's alone.

    Raises:
        Exception: of many kinds, where model or data can't be pickled.
    """
    from ray import cloudpickle

    sent = replace(
        federation, aggregation=FedAvg(), privacy=None, run_dir=Path(),
        cache=PreparedCache(federation.cache.folder.absolute()),  # and not the clips that it holds
    )  # fmt: skip
    trained = {id(value) for value in federation.module.exchanged_parameters().values()}
    buffers: dict[int, pickle.PickleBuffer] = {}
    frozen: list[np.ndarray] = []

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]
        def reducer_override(self, value: Any) -> Any:
            if not _can_be_mapped(value) or id(value) in trained:
                return super().reducer_override(value)
            frozen.append(value.detach().view(-1).view(torch.uint8).numpy())
            buffer = pickle.PickleBuffer(frozen[-1])  # type: ignore[arg-type]
            buffers[id(buffer)] = buffer
            return _mapped, (buffer, value.dtype, tuple(value.shape))

    stream = io.BytesIO()
    # Other buffers stay within the pickle: their owners may write to them.
    Pickler(stream, pickle.HIGHEST_PROTOCOL, lambda buffer: id(buffer) not in buffers).dump(sent)
    return Packed(stream.getvalue(), frozen, os.getcwd(), list(sys.path))


def _can_be_mapped(value: Any) -> bool:
    return (
        type(value) is nn.Parameter
        and not value.requires_grad
        and value.device.type == "cpu"
        and value.is_contiguous()
        and value.nbytes >= LEAST_BYTES
    )


def _mapped(buffer: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> nn.Parameter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that nobody may write to it, and nobody does: it is frozen
        flat = torch.frombuffer(buffer, dtype=torch.uint8)
    return nn.Parameter(flat.view(dtype).view(shape), requires_grad=False)
