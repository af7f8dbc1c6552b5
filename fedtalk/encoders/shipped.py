"""Small networks that come with the package: one safetensors file each, whose header rebuilds the network."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from typing_extensions import Self

from fedtalk.errors import ArtifactError
from fedtalk.storage import atomic_path


class ShippedNetwork(nn.Module):
    """A network with a name, whose constructor's keyword arguments are its configuration.

    A subclass sets `kind` and passes its own arguments to ``super().__init__``.
    """

    kind: ClassVar[str]
    """Name of the network: of its file in `fedtalk.weights` and in the header of every file."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights, as 16-bit floats, with a JSON header that holds the kind and the configuration; atomic.

        Raises:
            OutputError: the folder can't be written or the disk is full.
        """
        header = {"fedtalk": json.dumps({"kind": self.kind, "config": self.config})}
        weights = {name: value.detach().cpu().half().contiguous() for name, value in self.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(weights, temporary, metadata=header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a network written by `save`, in 32 bits, ready for use (evaluation mode).

        Raises:
            ArtifactError: the file is missing, damaged, or holds another kind of network.
        """
        path = Path(path)
        if not path.is_file():
            raise ArtifactError(f"{cls.kind} network {path}: no such file; expected one written by {cls.__name__}.save")
        try:
            with safe_open(path, "pt") as stored:
                header = json.loads((stored.metadata() or {}).get("fedtalk", "{}"))
                weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, ValueError, OSError) as error:
            raise ArtifactError(
                f"{cls.kind} network {path} can't be read ({error}); the file is damaged. Install fedtalk again, or "
                "make the file anew as the model card beside it says."
            ) from error
        if header.get("kind") != cls.kind:
            raise ArtifactError(f"{path}: expected a network of kind {cls.kind!r}, got {header.get('kind')!r}")
        try:
            with torch.random.fork_rng(
                devices=[]
            ):  # what is drawn before the weights are loaded is nobody else's business
                network = cls(**header["config"])
            network.load_state_dict(weights)
        except (TypeError, KeyError, RuntimeError) as error:
            raise ArtifactError(
                f"{cls.kind} network {path}: header and weights don't fit this version of fedtalk ({error}); "
                "use the file that came with the package"
            ) from error
        return network.eval()

    @classmethod
    def held_out_figures(cls) -> dict[str, dict[str, float]]:
        """What the shipped network was measured to do on people it did not learn from, by whom and measure: of the model card."""
        card = (resources.files("fedtalk.weights") / "README-small.md").read_text(encoding="utf-8")
        section = card.partition(f"\n## {cls.kind}\n")[2].partition("\n## ")[0]
        table = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"
        ]
        names, rows = (table[0][1:], table[2:]) if table and table[0][0] == "measured on" else ([], [])
        return {row[0]: {name: float(value) for name, value in zip(names, row[1:], strict=True)} for row in rows}

    @classmethod
    def shipped(cls, name: str | None = None) -> Self:
        """The trained network that comes with the package.

        Args:
            name: of its file, where it isn't the network's kind.

        Raises:
            ArtifactError: the package was installed without its weights, or they are damaged.
        """
        source = resources.files("fedtalk.weights") / f"{name or cls.kind}.safetensors"
        if not source.is_file():
            raise ArtifactError(
                f"the package holds no {source.name}; expected it in fedtalk/weights. Install fedtalk again, or train "
                f"it: fedtalk fit --config configs/{cls.kind}.yaml"
            )
        with resources.as_file(source) as path:
            return cls.load(path)


def convolution(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    """3 x 3 convolution, group norm (no statistics to exchange between clients), SiLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU())


def as_pictures(frames: torch.Tensor, kind: str) -> torch.Tensor:
    """Check that ``frames`` are (N, 3, H, W) floats.

    Raises:
        ArtifactError: they are not.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or not frames.is_floating_point():
        raise ArtifactError(
            f"frames for {kind}: expected (N, 3, H, W) float in [-1, 1], got {tuple(frames.shape)} {frames.dtype}"
        )
    return frames
