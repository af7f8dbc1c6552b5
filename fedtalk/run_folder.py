"""What lies where in a run's folder, and which names other people's choices must not take.

Released and personal adapters lie in different folders: what a person is called can't turn one into the other, on file
systems that ignore case either.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath

from fedtalk.errors import ConfigurationError

OURS = (
    "adapters", "audit", "audio", "checkpoints", "clients", "config.yaml", "contact_sheet.png", "flower", "joined.json",
    "metrics.json", "predictions", "report.html", "tensorboard", "videos",
)  # fmt: skip
"""Names in a run's folder that no setting may choose."""


def released_adapter(run_dir: Path) -> Path:
    """The global adapter, which may be published."""
    return run_dir / "adapters" / "released"


def personal_adapters(run_dir: Path) -> Path:
    """The folder of all personal adapters, none of which leaves its person."""
    return run_dir / "adapters" / "personal"


def personal_adapter(run_dir: Path, person: str) -> Path:
    """A person's own adapter.

    Raises:
        ConfigurationError: the person's name is no name of a folder.

    >>> personal_adapter(Path("run"), "global").as_posix()
    'run/adapters/personal/global'
    """
    check_name("client", person)
    return personal_adapters(run_dir) / person


def check_name(what: str, name: str) -> None:
    """Refuse a name that would lead out of the folder that it is a name in.

    Raises:
        ConfigurationError: it isn't one plain name.
    """
    if (
        not name
        or name in (".", "..")
        or any(character in name for character in "/\\\0")
        or PurePath(name).is_absolute()
    ):
        raise ConfigurationError(f"{what}: expected one plain name of a folder, got {name!r}. Rename it.")


def check_chosen(what: str, name: str) -> None:
    """Refuse a name for something new in a run's folder that fedtalk has a use of its own for, in any case.

    Raises:
        ConfigurationError: it is taken, or no plain name.
    """
    check_name(what, name)
    if name.startswith(".") or _folded(name) in map(_folded, OURS):
        raise ConfigurationError(
            f"{what}: expected a name that fedtalk doesn't use itself in a run's folder, got {name!r}. Choose another one."
        )


def check_clients(names: Iterable[str], run_dir: Path) -> None:
    """Refuse clients whose files would overwrite each other's, or lie elsewhere.

    Raises:
        ConfigurationError: a name is no plain one, or two are the same to a file system that ignores case.
    """
    seen: dict[str, str] = {}
    for name in names:
        check_name("client", name)
        other = seen.setdefault(_folded(name), name)
        if other != name and _ignores_case(run_dir):
            raise ConfigurationError(
                f"clients {other!r} and {name!r}: expected names that differ in more than case, since {run_dir} lies on a file "
                "system that ignores it. Rename one of them, or choose another trainer.default_root_dir."
            )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _ignores_case(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".part-case-", dir=folder) as probe:
        path = Path(probe.name)
        return (path.parent / path.name.upper()).exists()
