"""`prepare`, killed before each change that it makes on the disk and run again. Prints what happened as JSON.

    python killed_prepare.py FOLDER STEP

FOLDER holds ``raw``, ``former`` (clients of an earlier run with other settings, one of whose videos is no longer in ``raw``) and
nothing else; each STEP-th change is tried. Processes are forked, so that libraries are imported once.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apart import KilledBefore, apart
from heads import DotFinder

from fedtalk.data.prepare import one_video, prepare

FORMER: dict[str, Any] = {"size": 32, "clip_seconds": 0.2, "detect_every": 6}
SETTINGS: dict[str, Any] = {"size": 48, "clip_seconds": 0.2, "detect_every": 3}


def run(folder: Path, clients: str, settings: dict[str, Any], jobs: int = 1) -> None:
    prepare(folder / "raw", folder / clients, finder=DotFinder(), progress=False, jobs=jobs, **settings)


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder but locks, which mean nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def killed_before(change: int, folder: Path) -> int:
    """Run, killed before a change; or count them all into ``changes``."""

    def work() -> None:
        killer = KilledBefore(change, "os.rename", "os.remove", "os.rmdir", "os.mkdir")
        run(folder, "clients", SETTINGS)
        total = killer.count  # before the next line's own
        (folder / "changes").write_text(str(total))

    return apart(work)


def begun(folder: Path) -> dict[str, list[str]]:
    """Run again; which videos were followed and which were cut."""
    steps: dict[str, list[str]] = {"follow": [], "cut": []}

    def work() -> None:
        follow, cut = one_video._follow, one_video._cut

        def followed(source: Any, *arguments: Any) -> Any:
            steps["follow"].append(source.label)
            return follow(source, *arguments)

        def cut_out(source: Any, *arguments: Any) -> Iterator[Any]:
            steps["cut"].append(source.label)
            yield from cut(source, *arguments)

        one_video._follow, one_video._cut = followed, cut_out  # type: ignore[assignment]
        run(folder, "clients", SETTINGS)
        (folder / "steps").write_text(json.dumps(steps))

    assert apart(work) == 0
    return json.loads((folder / "steps").read_text())


def finished(clients: Path, whole: dict[str, bytes]) -> dict[str, list[str]]:
    """Steps whose result was on the disk when the process was killed."""
    now = files(clients)
    steps: dict[str, list[str]] = {"follow": [], "cut": []}
    for name, content in whole.items():
        if name.startswith(".prepare/") and name.endswith(".json"):
            label = json.loads(content)["label"]
            if now.get(name.replace(".json", ".npz")) == whole[name.replace(".json", ".npz")]:
                steps["follow"].append(label)
            if content in (now.get(name), now.get(name.replace(".json", "/complete.json"))):
                steps["cut"].append(label)
    return steps


def main() -> None:
    folder = Path(sys.argv[1])
    former, problems = files(folder / "former"), []
    shutil.copytree(folder / "former", folder / "clients")
    assert killed_before(-1, folder) == 0
    whole = files(folder / "clients")
    changes = int((folder / "changes").read_text())
    for change in range(0, changes, int(sys.argv[2])):
        shutil.rmtree(folder / "clients")
        shutil.copytree(folder / "former", folder / "clients")
        if killed_before(change, folder) != signal.SIGKILL:
            problems.append(f"{change}: not killed")
        left = {
            name: content for name, content in files(folder / "clients").items() if not name.startswith(".prepare/")
        }
        half = [n for n, content in left.items() if ".part-" not in n and content not in (former.get(n), whole.get(n))]
        if half:
            problems.append(f"{change}: half made {half}")
        done = finished(folder / "clients", whole)
        again = begun(folder)
        redone = {step: sorted(set(again[step]) & set(done[step])) for step in done}
        if any(redone.values()):
            problems.append(f"{change}: redone {redone}")
        after = files(folder / "clients")
        if after != whole:
            names = sorted(name for name in after.keys() | whole.keys() if after.get(name) != whole.get(name))
            problems.append(f"{change}: differs in {names}")
    print(json.dumps({"changes": changes, "problems": problems, "files": sorted(whole)}))


if __name__ == "__main__":
    main()
