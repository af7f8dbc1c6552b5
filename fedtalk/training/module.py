"""What a model must offer to be trained by `FederatedTrainer`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from fedtalk.data.clip import Clip
from fedtalk.errors import ConfigurationError

CommonForm = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Brings a state into the form in which it is exchanged."""
Prepared = dict[str, Tensor]
"""A clip as the model reads it (latents, audio features, ...); cached on the client's own disk."""


class FederatedModule(LightningModule):
    """A LightningModule whose exchanged parameters travel between server and clients, and whose data are clips."""

    @abstractmethod
    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes and that a round exchanges, by name; all else is frozen and stays put."""

    def kept_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that a client trains beside those that are exchanged, by name, and keeps: they go from one of its rounds to
        the next and to nobody else (FedPer, Arivazhagan et al. 2019). None by default.
        """
        return {}

    looks: Any = None
    """What is one client's own and found in closed form, without steps, for its personal adapter; it is never exchanged."""

    def looks_of(self, clips: Sequence[Prepared]) -> Any:
        """`looks` of the client whose prepared clips these are. Nothing by default."""
        return None

    @abstractmethod
    def cache_key(self) -> str:
        """Changes whenever `prepare_clip` would give another result; names the folder of the cache."""

    @abstractmethod
    def prepare_clip(self, clip: Clip) -> Prepared:
        """Turn a clip into what training reads. Called once a clip; the result is kept on disk."""

    @abstractmethod
    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        """Draw a training batch from one client's prepared clips; all randomness of a step comes from ``generator``.

        A batch that is to be shared (`split_batch`) has its ``size`` windows along the first axis of every tensor.
        """

    @abstractmethod
    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        """Scalar terms of the objective, already weighted; their sum is minimised."""

    def training_step(self, batch: Prepared, batch_idx: int = 0) -> dict[str, Tensor]:
        """The objective of one batch: ``loss`` and its terms."""
        return with_sum(self.loss_terms(batch))

    changes_form = False
    """Whether `local_form` is another one in every round, where an optimizer's state of the round before is of no use."""

    def local_form(self) -> AbstractContextManager[CommonForm]:
        """Inside the block the exchanged parameters, as they were loaded, are in the form in which clients train them.

        It is derived from what was loaded alone, so that no client has another one. Nothing may be loaded inside the block but
        what was copied there.

        Yields:
            what brings copies of the exchanged parameters, made inside the block, into the form in which they are exchanged.
        """
        return nullcontext(lambda state: state)

    # What placements ask of a module; those that need none of it need none of these

    def split_batch(self, batch: Prepared, parts: int) -> list[Prepared]:
        """Cut a batch into equal parts, the mean of whose objectives is the objective of the batch.

        Raises:
            ConfigurationError: its tensors don't agree on the number of windows.
        """
        sizes = {len(value) for value in batch.values()}
        if len(sizes) != 1 or next(iter(sizes)) % parts:
            raise ConfigurationError(
                f"{type(self).__name__}: a batch is shared along the first axis of its tensors: expected one and the same "
                f"multiple of {parts} there, got {sorted(sizes)}; override split_batch, or use one process and accumulate: 1"
            )
        cut = {name: value.chunk(parts) for name, value in batch.items()}
        return [{name: value[index] for name, value in cut.items()} for index in range(parts)]

    trains_together = False
    """Whether `together` and `training_steps` are there."""

    def together(self, stacked: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Inside the block a batch holds the windows of K clients, in equal parts one after the other, and each goes through
        its own exchanged parameters.

        Args:
            stacked: exchanged parameters, (K, *shape).
        """
        raise ConfigurationError(f"{type(self).__name__} trains one client at a time: expected placement.together: 1")

    def training_steps(self, batch: Prepared, clients: int) -> list[dict[str, Tensor]]:
        """`training_step` of each of the K clients in a batch, inside `together`."""
        raise ConfigurationError(f"{type(self).__name__} trains one client at a time: expected placement.together: 1")

    def shards(self) -> list[nn.Module]:
        """Sub-modules that fsdp shards, each called as a whole by the one around it; the last one holds all the others and
        all exchanged parameters.

        Raises:
            ConfigurationError: the module can't be sharded.
        """
        raise ConfigurationError(
            f"{type(self).__name__} does not say how to shard it; expected placement single or ddp"
        )

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass, or keep them.

        Raises:
            ConfigurationError: the module has none to recompute.
        """
        raise ConfigurationError(
            f"{type(self).__name__} has no gradient checkpointing; expected placement.gradient_checkpointing: false"
        )

    def set_compiled(self, enabled: bool) -> None:
        """Run the network through torch.compile, or as it is. Switching must not compile again what has been compiled.

        Raises:
            ConfigurationError: the module has nothing to compile.
        """
        raise ConfigurationError(
            f"{type(self).__name__} does not say what of it to compile; expected placement.compile: false"
        )

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """Metrics on clips that were not trained on; by default the objective's terms on one fixed batch."""
        with torch.no_grad():
            terms = self.loss_terms(self.draw_batch(clips, 16, generator))
        metrics = {name: float(value) for name, value in terms.items()}
        return {"loss": sum(metrics.values()), **metrics}

    def reliability(
        self, held_out: Sequence[Prepared], training: Sequence[Prepared], generator: torch.Generator
    ) -> tuple[float, float]:
        """Identity consistency and temporal stability on a client's own held-out clips, both in [0, 1].

        Args:
            held_out: clips that are measured on.
            training: clips that say who the client is.
            generator: of all that is drawn.

        Models without such a notion call every client fully reliable.
        """
        return 1.0, 1.0

    def quality(self, training: Sequence[Prepared]) -> float:
        """How far a client's training clips can be relied on, in [0, 1]; models without such a notion rely on all of them.

        Args:
            training: the client's prepared clips.
        """
        return 1.0

    def fingerprint(self) -> str:
        """Names the frozen part; a checkpoint is refused by a module with another one."""
        return self.cache_key()

    def meaning(self) -> dict[str, object]:
        """Settings, by their keys, under which the exchanged parameters mean what they mean: a checkpoint that was made with
        others is refused, though its shapes may fit.
        """
        return {}

    def export(self, folder: Path, clips: Sequence[Prepared]) -> None:
        """Write the trained model as a folder that other runs can load."""
        raise ConfigurationError(
            f"{type(self).__name__} has nothing to export; remove the Export callback from the config"
        )

    def configure_optimizers(self) -> None:
        """Optimizers belong to the clients (`LocalTraining`) and to the server, not to the model."""


def with_sum(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Terms of the objective with their sum, ``loss``."""
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def copy_state(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies, whole and on the CPU. Of sharded parameters all processes must ask together."""
    return {name: whole(value.detach()).cpu().clone() for name, value in parameters.items()}


def load_state(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Write ``state`` into the parameters in place; sharded ones take their part of it."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if hasattr(parameter, "to_local"):
                from torch.distributed.tensor import distribute_tensor

                part = distribute_tensor(state[name], parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]
                parameter.to_local().copy_(part.to_local())  # type: ignore[attr-defined]
            else:
                parameter.copy_(state[name])


def whole(value: Tensor) -> Tensor:
    """A tensor as it is, or put together where every process has a part of it (DTensor)."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value  # type: ignore[attr-defined]
