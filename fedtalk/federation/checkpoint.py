"""The checkpoint of a round: written whole or not at all, checked when it is read."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from fedtalk.errors import ArtifactError
from fedtalk.storage import atomic_path
from fedtalk.training.module import FederatedModule
from fedtalk.version import __version__

CHECKED = {"seed", "server", "made_for", "meaning"}
"""By which it is told whether a checkpoint fits."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    save_tensors(path, {"fedtalk": __version__, **content})


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """`torch.save`, atomically, for its owner alone: it holds what single clients have, or what hides it."""
    buffer = io.BytesIO()  # torch's own writer reports a full disk as a RuntimeError without a file's name
    torch.save(content, buffer)
    with atomic_path(path, private=True) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def find_checkpoint(ckpt_path: str, run_dir: Path) -> Path | None:
    """The file that ``--ckpt_path`` means; None for ``last`` in a run that has none yet.

    Raises:
        ArtifactError: a named file does not exist.
    """
    if ckpt_path == "last":
        path = run_dir / "checkpoints" / "last.ckpt"
        return path if path.exists() else None
    path = Path(ckpt_path)
    if not path.exists():
        raise ArtifactError(f"--ckpt_path {path}: no such file; expected 'last' or a checkpoint of `fedtalk fit`")
    return path


def load_checkpoint(
    path: Path, module: FederatedModule, seed: int | None = None, keys: Collection[str] = ()
) -> dict[str, Any]:
    """Read a checkpoint and make sure that it fits.

    Args:
        path: of the file.
        module: what it is to be loaded into.
        seed: of the run, where it is to go on.
        keys: that it must have.

    Raises:
        ArtifactError: the file is damaged, is no fedtalk checkpoint, or belongs to another model or seed.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise ArtifactError(
            f"checkpoint {path} can't be read ({type(error).__name__}); it was cut short or is not a checkpoint. "
            "Start again without --ckpt_path, or name an older checkpoint."
        ) from error
    if not isinstance(saved, dict) or "fedtalk" not in saved:
        raise ArtifactError(f"checkpoint {path} was not written by fedtalk; expected a file of `fedtalk fit`")
    missing = sorted({*CHECKED, *keys} - saved.keys())
    if saved["fedtalk"] != __version__ or missing:
        without = f", without {', '.join(missing)}" if missing else ""
        raise ArtifactError(
            f"checkpoint {path} was written by fedtalk {saved['fedtalk']}{without}: expected one of fedtalk {__version__}. Go on "
            "with the version that wrote it, or start again without --ckpt_path"
        )
    meaning = module.meaning()
    differing = [
        f"{key} {saved['meaning'].get(key)!r} in the checkpoint, {meaning.get(key)!r} in this run"
        for key in sorted(meaning.keys() | saved["meaning"].keys())
        if saved["meaning"].get(key) != meaning.get(key)
    ]
    if differing:
        raise ArtifactError(
            f"checkpoint {path} was made with other settings, under which the same numbers mean something else: "
            f"{'; '.join(differing)}. Use the config that is saved with the run."
        )
    expected = {name: tuple(value.shape) for name, value in module.exchanged_parameters().items()}
    got = {name: tuple(value.shape) for name, value in saved["server"]["state"].items()}
    if saved["made_for"] != module.fingerprint() or expected != got:
        raise ArtifactError(
            f"checkpoint {path} was made for another model (backbone {saved['made_for']}, {len(got)} tensors); this run has "
            f"backbone {module.fingerprint()} and {len(expected)} tensors. Use the config that is saved with the run."
        )
    if seed is not None and saved["seed"] != seed:
        raise ArtifactError(
            f"checkpoint {path} belongs to seed {saved['seed']}, this run has seed {seed}; use the same seed"
        )
    return saved
