"""The commands of `fedtalk`: one table, one file a command. Another command is a line here and its file."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One command."""

    usage: str
    """Its name and what is usually given to it."""
    summary: str
    module: str
    """Where its function is, which has the command's name; imported when the command is run."""
    own_parser: bool = False
    """Whether the function is given the arguments as they are; otherwise its signature is the command line."""
    positional: bool = False
    """Whether the parameters without default are given by their place."""

    @property
    def name(self) -> str:
        return self.usage.split()[0]

    @property
    def function(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.name)


_TRAINING = "fedtalk.commands.training"

TABLE = (
    Command("fit --config C", "train by federated rounds; --ckpt_path last goes on where it stopped", _TRAINING, True),
    Command("validate --config C --ckpt_path last", "held-out metrics of a trained adapter", _TRAINING, True),
    Command("test --config C --ckpt_path last", "the table of metrics with its controls, contact sheet, videos", _TRAINING, True),
    Command("predict --config C --ckpt_path last", "videos of held-out clips", _TRAINING, True),
    Command("prepare RAW CLIENTS", "ordinary videos to aligned clips, one folder a person", "fedtalk.commands.prepare",
            positional=True),
    Command("generate --portrait P --audio A --out O", "a picture and speech to a speaking face", "fedtalk.commands.generate"),
    Command("app", "a local page for the same", "fedtalk.commands.app"),
    Command("consent CLIENTS", "who agreed to what; deletes what runs keep of those who took it back", "fedtalk.commands.consent",
            positional=True),
    Command("sweep --config C --seeds 0-4", "the same run with several seeds and variations, with intervals and tests",
            "fedtalk.sweeps.command", True),
    Command("report RUN...", "one HTML page: curves, tables, spread, videos", "fedtalk.report.command", True),
    Command("doctor", "what this machine can run, and what to do about the rest", "fedtalk.commands.doctor"),
    Command("audit RUN", "attacks on a finished run: what they prove about its privacy", "fedtalk.commands.audit",
            positional=True),
    Command("ledger FOLDER", "what a private run has spent, on what, and against whom", "fedtalk.commands.ledger",
            positional=True),
    Command("flower keys|server|client", "the same rounds across organisations, over Flower",
            "fedtalk.federation.engines.flower.commands", True),
)  # fmt: skip

COMMANDS = {command.name: command for command in TABLE}
