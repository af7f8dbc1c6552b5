"""Who is a client: clips of a prepared folder divided by a key of its manifest, unevenly on purpose, or within a budget.

All of it works on lines of ``manifest.csv`` (dicts of strings), and everything random comes from a seed and a purpose.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.randomness import numpy_generator

Row = Mapping[str, str]
"""A line of the manifest: client, source, clip, start, seconds, and what the layout knows."""
MANIFEST = "manifest.csv"


def read_manifest(clients: Path) -> list[dict[str, str]]:
    """The manifest of a clients folder.

    Raises:
        ArtifactError: there is none, or it lacks the columns that each manifest has.
    """
    path = clients / MANIFEST
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"manifest {path} can't be read ({error}); run `fedtalk prepare` again") from error
    missing = {"client", "clip", "source", "seconds"} - set(rows[0] if rows else ())
    if missing:
        raise ArtifactError(f"manifest {path} has no column {', '.join(sorted(missing))}; run `fedtalk prepare` again")
    return rows


def clients_by(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, list[Row]]:
    """One client for each combination of the values of ``keys``, for instance ``client`` and ``emotion``.

    Raises:
        ConfigurationError: the manifest has no such column.

    >>> rows = [{"client": "a", "emotion": "sad"}, {"client": "a", "emotion": "happy"}, {"client": "b", "emotion": "sad"}]
    >>> {name: len(part) for name, part in clients_by(rows, ["client", "emotion"]).items()}
    {'a-happy': 1, 'a-sad': 1, 'b-sad': 1}
    """
    for key in keys:
        if not rows or key not in rows[0]:
            known = ", ".join(sorted(rows[0])) if rows else "none"
            raise ConfigurationError(f"clients by {key!r}: expected a column of the manifest ({known})")
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts["-".join(row[key] or "none" for key in keys)].append(row)
    return dict(sorted(parts.items()))


def dirichlet_clients(
    rows: Sequence[Row], key: str, clients: int, concentration: float, seed: int
) -> dict[str, list[Row]]:
    """Clients whose shares of the values of ``key`` are drawn from a Dirichlet distribution (Hsu et al. 2019).

    The smaller the concentration, the more a client holds of few values; at infinity all clients are alike.

    Args:
        rows: lines of the manifest.
        key: column whose values are shared out, for instance ``emotion``.
        clients: how many.
        concentration: of the symmetric distribution, above 0.
        seed: of the draw.

    Raises:
        ConfigurationError: unknown key, no clients, or a concentration that is not positive.
    """
    if clients < 1 or not concentration > 0:
        raise ConfigurationError(
            f"Dirichlet split: expected 1 client or more and a concentration above 0, got {clients} and {concentration}"
        )
    names = [f"client-{number:03d}" for number in range(clients)]
    parts: dict[str, list[Row]] = {name: [] for name in names}
    for value, group in clients_by(rows, [key]).items():
        generator = numpy_generator(seed, "dirichlet", key, value)
        shares = generator.dirichlet(np.full(clients, min(concentration, 1e6)))
        edges = np.round(np.cumsum(shares) * len(group)).astype(int)
        order = generator.permutation(len(group))
        for name, low, high in zip(names, [0, *edges[:-1]], edges, strict=True):
            parts[name] += [group[index] for index in order[low:high]]
    return {name: sorted(part, key=_place) for name, part in parts.items()}


def within_budget(
    rows: Sequence[Row], seconds: float, worth: Mapping[tuple[str, str], float] | None = None
) -> list[Row]:
    """Clips of one client up to a length in all: the first ones, or those worth most.

    Args:
        rows: lines of one client.
        seconds: budget.
        worth: by (client, clip); see `fedtalk.data.informative`.

    >>> rows = [{"client": "a", "clip": str(n), "source": "s", "start": str(n), "seconds": "2"} for n in range(3)]
    >>> [row["clip"] for row in within_budget(rows, 4, {("a", "0"): 0.1, ("a", "1"): 0.2, ("a", "2"): 0.9})]
    ['1', '2']
    """
    ordered = sorted(rows, key=_place)
    if worth is not None:
        ordered.sort(key=lambda row: -worth[row["client"], row["clip"]])
    kept: list[Row] = []
    left = seconds
    for row in ordered:
        if float(row["seconds"]) <= left + 1e-6:
            kept.append(row)
            left -= float(row["seconds"])
    return sorted(kept, key=_place)


def _place(row: Row) -> tuple[str, str, float]:
    return row["client"], row["source"], float(row["start"] or 0)
