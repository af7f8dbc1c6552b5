"""What a client keeps from round to round, on disk and opened when the client is drawn: memory does not grow with clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fedtalk.errors import ArtifactError
from fedtalk.federation.checkpoint import save_tensors


class ClientStates:
    """Files ``FOLDER/CLIENT/ROUND.ckpt``: the state a client had after its local steps of a round.

    A round that was abandoned and is run again must start from what was there before it, so a state is kept until a later
    round of the client has been written on top of a checkpoint: two files a client at most.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source: Path | None = None
        self._source_end = 0

    def begin(self, round_number: int, source: Path | None = None) -> None:
        """Forget what no checkpoint vouches for: states of a former run, or of a round that was abandoned.

        Args:
            round_number: the first round to come.
            source: folder of the checkpoint's states where a run goes on from one; it may be another run's.

        Raises:
            ArtifactError: there is no such folder.
        """
        if source is not None and not source.is_dir():
            raise ArtifactError(
                f"the checkpoint needs its clients' optimizer states in {source}, which does not exist; copy that folder "
                "with the checkpoint, or start again without --ckpt_path"
            )
        own = source is not None and source.resolve() == self._folder.resolve()
        self._source, self._source_end = (None, 0) if own else (source, round_number)
        for path in self._folder.glob("*/[0-9]*.ckpt"):
            if not own or int(path.stem) >= round_number:
                path.unlink()

    def load(self, client: str, round_number: int) -> dict[str, Any] | None:
        """The state from before ``round_number``; None for a client that has none."""
        folder, earlier = self._folder, [number for number in _rounds(self._folder / client) if number < round_number]
        if not earlier and self._source is not None:
            folder = self._source
            earlier = [number for number in _rounds(folder / client) if number < self._source_end]
        if not earlier:
            return None
        path = folder / client / f"{max(earlier)}.ckpt"
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged archive
            raise ArtifactError(f"state {path} can't be read ({type(error).__name__}); remove it") from error

    def save(self, client: str, round_number: int, state: dict[str, Any]) -> None:
        """Write the state after ``round_number``; those before the one it came from are no longer needed."""
        folder = self._folder / client
        save_tensors(folder / f"{round_number}.ckpt", state)
        earlier = sorted(number for number in _rounds(folder) if number < round_number)
        for number in earlier[:-1]:
            (folder / f"{number}.ckpt").unlink(missing_ok=True)


def _rounds(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("[0-9]*.ckpt")]
