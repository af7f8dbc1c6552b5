"""Where clips come from: the data module's contract, and the cache of prepared clips."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fedtalk.data.clip import Clip
from fedtalk.storage import atomic_path
from fedtalk.training.module import FederatedModule, Prepared


@dataclass(frozen=True)
class ClipSource:
    """A clip that is opened when it is needed."""

    key: str
    """Names the clip's content: two sources with one key give the same clip."""
    load: Callable[[], Clip]


class ClipData(LightningDataModule):
    """Clips by client. Held-out clips are never trained on."""

    revoked: Sequence[str] = ()
    """People who took their consent back: not among the clients, and what was made of their clips is deleted."""

    @property
    @abstractmethod
    def clients(self) -> list[str]:
        """Names of the clients, in a fixed order."""

    @abstractmethod
    def training_clips(self, client: str) -> Sequence[ClipSource]:
        """What the client trains on."""

    @abstractmethod
    def held_out_clips(self, client: str) -> Sequence[ClipSource]:
        """What the client measures on."""

    @property
    def unreliable_clients(self) -> Sequence[str]:
        """Clients whose clips were made faulty on purpose; nobody knows of real ones."""
        return ()

    def consent_record(self, client: str) -> Path | None:
        """File that says what a client's person agreed to; None where they are nobody."""
        return None

    def follow_seed(self, seed: int) -> None:
        """Take the run's seed where the data are drawn and have none of their own."""

    @property
    def evaluation_clients(self) -> list[str]:
        """People that tables are made of: clients, or whose clips a client holds; faulty ones, where they are known, are left
        out.
        """
        return self.clients

    @property
    def typical_client(self) -> str:
        """A client that estimates are made with: the first that tables are made of, where it is one."""
        first = self.evaluation_clients[0]
        return first if first in self.clients else self.clients[0]


POOLED = "public"
"""The one client of centralised training."""


class CentralData(ClipData):
    """One client, `POOLED`, for centralised training."""

    def __init__(self) -> None:
        super().__init__()
        self._training: list[ClipSource] = []
        self._held_out: list[ClipSource] = []

    @property
    def clients(self) -> list[str]:
        return [POOLED]

    def training_clips(self, client: str) -> list[ClipSource]:
        return self._training

    def held_out_clips(self, client: str) -> list[ClipSource]:
        return self._held_out


class PreparedCache:
    """Prepared clips on disk, one safetensors file each; made on first use, reread afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._latest: tuple[list[str], list[Prepared]] = ([], [])

    def get(self, module: FederatedModule, sources: Sequence[ClipSource]) -> list[Prepared]:
        """The prepared clips of ``sources``, in order. The latest client's stay in memory: centralised training rereads none."""
        folder = self.folder / hashlib.sha256(module.cache_key().encode()).hexdigest()[:16]
        paths = [folder / f"{hashlib.sha256(source.key.encode()).hexdigest()[:24]}.safetensors" for source in sources]
        names = [str(path) for path in paths]
        if self._latest[0] != names:
            pairs = zip(paths, sources, strict=True)
            self._latest = names, [self._one(module, path, source) for path, source in pairs]
        return self._latest[1]

    def _one(self, module: FederatedModule, path: Path, source: ClipSource) -> Prepared:
        if not path.exists():
            with torch.no_grad():
                made = {name: value.cpu().contiguous() for name, value in module.prepare_clip(source.load()).items()}
            with atomic_path(path) as temporary:
                temporary.write_bytes(save(made))
        try:
            return load_file(path)
        except SafetensorError:  # a damaged cache file is made again
            path.unlink()
            return self._one(module, path, source)
