"""How a prepared folder is divided into clients, as a config says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedtalk.data.clip import Clip
from fedtalk.data.informative import worth_of
from fedtalk.data.partition import Row, clients_by, dirichlet_clients, read_manifest, within_budget
from fedtalk.errors import ConfigurationError


@dataclass
class Division:
    """Who is a client and with which clips; needs the ``manifest.csv`` that `fedtalk prepare` writes."""

    by: list[str] = field(default_factory=lambda: ["client"])
    """Columns of the manifest; each combination of their values is a client. ``client`` is the person."""
    dirichlet: float | None = None
    """Instead: concentration of a Dirichlet split of the one column in ``by``, for instance ``emotion``."""
    clients: int = 10
    """How many clients a Dirichlet split makes."""
    seconds: float | None = None
    """Most seconds of clips a client keeps."""
    choose: Literal["first", "informative"] = "first"
    """Which clips those are: ``first``, or ``informative`` (`fedtalk.data.informative`)."""

    def __post_init__(self) -> None:
        if self.choose not in ("first", "informative"):
            raise ConfigurationError(f"division.choose: expected 'first' or 'informative', got {self.choose!r}")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigurationError(f"division.seconds: expected more than 0, got {self.seconds}")
        if self.choose == "informative" and self.seconds is None:
            raise ConfigurationError("division.choose: 'informative' needs division.seconds, a budget to choose within")
        if self.dirichlet is not None and len(self.by) != 1:
            raise ConfigurationError(f"division.by: a Dirichlet split takes one column, got {self.by}")

    def divide(self, root: Path, people: list[str], seed: int) -> dict[str, list[Path]]:
        """Files of each client's clips.

        Args:
            root: clients folder.
            people: whose clips may be used.
            seed: of a Dirichlet split.
        """
        rows: list[Row] = [row for row in read_manifest(root) if row["client"] in set(people)]
        if self.dirichlet is None:
            parts = clients_by(rows, self.by)
        else:
            parts = dirichlet_clients(rows, self.by[0], self.clients, self.dirichlet, seed)
        divided = {}
        for name, part in parts.items():
            kept = part if self.seconds is None else self._within(root, part, self.seconds)
            if kept:
                divided[name] = [root / row["client"] / row["clip"] for row in kept]
        return divided

    def _within(self, root: Path, rows: list[Row], seconds: float) -> list[Row]:
        worth = None
        if self.choose == "informative" and rows:
            paths = {(row["client"], row["clip"]): root / row["client"] / row["clip"] for row in rows}
            worth = worth_of([(name, Clip.load(path)) for name, path in paths.items()])
        return within_budget(rows, seconds, worth)
