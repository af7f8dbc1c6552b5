"""A finished run, opened again from its folder: the config it was made with, its clients, its released adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from fedtalk.commands.training import build
from fedtalk.data.folder_data import FolderData
from fedtalk.data.source import ClipData
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.checkpoint import load_checkpoint
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.federation import Federation
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.talker.module import Talker
from fedtalk.training.module import Prepared, copy_state

_FAR = 100_000
"""Numbers of fresh SynthTalk people start so far behind the run's own."""


@dataclass
class OpenedRun:
    """A run as the audit needs it."""

    folder: Path
    trainer: FederatedTrainer
    federation: Federation
    module: Talker
    data: ClipData
    initial: dict[str, Tensor]
    """What every client started from in the first round."""
    released: dict[str, Tensor]
    """The global state after the last round."""
    checkpoint: dict[str, Any]
    config: dict[str, Any]

    @property
    def rounds(self) -> int:
        """Rounds that were run."""
        return int(self.checkpoint["round"])

    def prepared(self, data: ClipData, person: str, held_out: bool = False) -> list[Prepared]:
        """A person's prepared clips, who may be no client of the run."""
        return ClientHalf(replace(self.federation, data=data)).prepared(person, held_out)


def open_run(folder: Path, threads: int | None = None) -> OpenedRun:
    """Open the folder of a finished `fedtalk fit`.

    Args:
        folder: the run's folder, with config.yaml and checkpoints/last.ckpt.
        threads: CPU threads instead of the config's.

    Raises:
        ArtifactError: no such run, no adapter in it, or a damaged checkpoint.
    """
    config_path, checkpoint_path = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such run; expected the folder of a finished `fedtalk fit`")
    for path in (config_path, checkpoint_path):
        if not path.exists():
            raise ArtifactError(
                f"{folder} is not a finished run: it has no {path.relative_to(folder)}; run `fedtalk fit` first"
            )
    config = _read_config(config_path)
    if threads:
        config["trainer"]["threads"] = threads
    trainer, module, data = build(config)
    if not isinstance(module, Talker) or module.adapter is None:
        raise ArtifactError(
            f"{folder} is a run without adapters ({type(module).__name__}); audited is what clients send, expected a Talker "
            "with model.adapter"
        )
    checkpoint = load_checkpoint(checkpoint_path, module)
    if checkpoint["round"] < 1:
        raise ArtifactError(f"{folder} has no round behind it yet; there is nothing to audit")
    federation = trainer.connect(module, data, "fit")
    return OpenedRun(
        folder, trainer, federation, module, data, copy_state(module.exchanged_parameters()), checkpoint["server"]["state"],
        checkpoint, config,
    )  # fmt: skip


def non_members(run: OpenedRun, count: int, folder: str | None) -> ClipData:
    """People of the same kind who took no part.

    SynthTalk draws them from the same population under other numbers, with the same share of faulty ones: members and
    non-members differ in nothing but having taken part.

    Args:
        run: the run.
        count: people to draw; a folder gives all of its own.
        folder: clients folder of people who took no part, made as the run's own; needed for data other than SynthTalk.

    Raises:
        ConfigurationError: other data and no folder.
        ArtifactError: a person of the folder is a client of the run.
    """
    section = run.config["data"]
    settings = dict(section.get("init_args") or {})
    if folder is not None:
        others: ClipData = FolderData(
            folder,
            **{name: settings[name] for name in ("held_out_seconds", "size") if name in settings},
        )
        both = sorted(set(others.clients) & set(run.data.clients))
        if both:
            raise ArtifactError(
                f"--non_members {folder}: {', '.join(both[:5])} took part in the run; expected people who did not"
            )
        return others
    if not isinstance(run.data, SynthTalkData):
        raise ConfigurationError(
            f"the run's data are {type(run.data).__name__}; give people of the same kind who took no part, as a clients "
            "folder made by `fedtalk prepare`: --non_members FOLDER"
        )
    if settings.get("centralised"):
        raise ConfigurationError(
            "the run is centralised (data.centralised): it has one client, whose membership says nothing"
        )
    others = SynthTalkData(**{**settings, "speakers": count, "first": settings.get("first", 0) + _FAR})
    others.follow_seed(run.federation.seed)
    return others


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArtifactError(
            f"config {path} can't be read ({type(error).__name__}); expected the one saved by fit"
        ) from error
    if not isinstance(config, dict) or not {"model", "data", "trainer"} <= set(config):
        raise ArtifactError(f"config {path} is not one of a run; expected the sections model, data and trainer")
    # The rest is of the command line that began the run, not of the run.
    return {key: config[key] for key in ("seed_everything", "model", "data", "trainer") if key in config}
