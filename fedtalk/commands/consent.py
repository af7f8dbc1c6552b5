"""`fedtalk consent CLIENTS`: who agreed to what; deletes what runs keep of those who took it back."""

from __future__ import annotations

from pathlib import Path

from fedtalk.data.consent import forget, overview


def consent(clients: str, runs: str | None = None) -> None:
    """Say who agreed to what, and delete what runs keep of those who took it back.

    Args:
        clients: clients folder made by `fedtalk prepare`.
        runs: a run, or a folder of several, from which the adapters of people who took consent back are deleted.
    """
    lines, gone = overview(Path(clients))
    print("\n".join(lines))
    if runs is not None:
        deleted = forget(Path(runs), gone)
        print(f"{len(deleted)} folders deleted below {runs}")
