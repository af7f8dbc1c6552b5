"""Whether a file is a summary of a sweep that a page can be made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedtalk.errors import ArtifactError

ABOUT = ("configs", "seeds", "vary", "threads", "code", "torch", "date")
ESTIMATE = ("mean", "low", "high", "seeds")
DIFFERENCE = (*ESTIMATE, "excludes_zero")


def check_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Look for all that a page needs.

    Args:
        summary: content of ``sweep.json`` or ``unfinished.json``.
        path: of the file, for the message.

    Raises:
        ArtifactError: something is missing, as in a file of another version; with what that is.
    """
    wrong = next(_wrong(summary), None)
    if wrong is not None:
        raise ArtifactError(
            f"report: {path} is no summary of a sweep as this version of fedtalk writes it: {wrong}. Run the same "
            "`fedtalk sweep` again to make it anew, or name folders of single runs below runs/"
        )


def _wrong(summary: Mapping[str, Any]) -> Iterator[str]:
    yield from _missing(summary, ("about", "variations", "runs", "failed"), "it")
    yield from _missing(summary["about"], ABOUT, "about")
    variations = summary["variations"]
    if not isinstance(variations, dict) or not variations:
        yield f"variations: expected an object with at least one, got {variations!r:.40}"
    for name, entry in variations.items():
        yield from _missing(entry, ("measures",), name)
        yield from _missing(entry["measures"], (), f"{name}.measures")
        for measure, row in entry["measures"].items():
            yield from _missing(row, ESTIMATE, f"{name}.{measure}")
            if row.get("against_first") is not None:
                yield from _missing(row["against_first"], DIFFERENCE, f"{name}.{measure}.against_first")
    for key, needed in (("runs", ("variation", "seed", "folder")), ("failed", ("variation", "seed", "reason"))):
        if not isinstance(summary[key], list):
            yield f"{key}: expected a list, got {type(summary[key]).__name__}"
        for entry in summary[key]:
            yield from _missing(entry, needed, f"an entry of {key}")
            if entry["variation"] not in variations:
                yield f"{key} has the variation {entry['variation']!r}, which variations has not"


def _missing(found: Any, needed: tuple[str, ...], where: str) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{where}: expected an object, got {type(found).__name__}"
    elif lacking := [name for name in needed if name not in found]:
        yield f"{where} has no {', '.join(lacking)}"
