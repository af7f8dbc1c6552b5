"""The house's rules about its own source, with the standard library alone: who imports whom, and how long a file is."""

from __future__ import annotations

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 300
STILL_LONG: set[str] = set()
"""To be parted or replaced; no other may join them."""

LAYERS = (
    (
        "fedtalk.version",
        "fedtalk.weights",
        "fedtalk.errors",
        "fedtalk.randomness",
        "fedtalk.storage",
        "fedtalk.paths",
        "fedtalk.machine",
        "fedtalk.checks",
        "fedtalk.interruption",
        "fedtalk.run_folder",
        "fedtalk.run_lock",
        "fedtalk.ahead",
    ),
    ("fedtalk.data.clip", "fedtalk.data.pixels", "fedtalk.data.textures"),
    ("fedtalk.training",),  # the contract of what is trained, and how
    ("fedtalk.encoders", "fedtalk.data"),
    ("fedtalk.talker",),
    (
        "fedtalk.federation.vector",
        "fedtalk.federation.server",
        "fedtalk.federation.scaffold",
        "fedtalk.federation.cohort",
    ),
    ("fedtalk.privacy",),
    ("fedtalk.callbacks", "fedtalk.callbacks.aggregation", "fedtalk.callbacks.baselines", "fedtalk.evaluation"),
    (
        "fedtalk.federation",
        "fedtalk.callbacks.*",
        "fedtalk.planning",
        "fedtalk.evaluation.trainer",
        "fedtalk.federation.engines.flower.agreement",
    ),
    ("fedtalk.federation.trainer",),
    (
        "fedtalk.commands",
        "fedtalk.privacy.audit",
        "fedtalk.federation.engines.flower",
        "fedtalk.sweeps",
        "fedtalk.report",
    ),
    ("fedtalk", "fedtalk.cli", "fedtalk.sweeps.single"),
)
"""From the bottom up, by packages and modules; the longest name that fits counts. A module imports from its own layer and from
those below."""


def _sources() -> dict[str, Path]:
    found = {}
    for top, name in ((ROOT / "fedtalk", "fedtalk"), (ROOT / "callbacks", "fedtalk.callbacks")):
        for path in top.rglob("*.py"):
            parts = path.relative_to(top).with_suffix("").parts
            if top.name == "fedtalk" and parts[0] == "callbacks":  # a link to the folder beside it
                continue
            found[".".join((name, *(part for part in parts if part != "__init__")))] = path
    return found


SOURCES = _sources()


def _imports(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere in it, also inside functions and for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: expected absolute imports"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & SOURCES.keys()) or {node.module}
    return found & SOURCES.keys()


@functools.cache
def _graph() -> dict[str, set[str]]:
    """What each module imports; when it is asked for, since every process that collects tests imports this file."""
    return {name: _imports(path) - {name} for name, path in SOURCES.items()}


def _layer(module: str) -> int:
    def names(layer: tuple[str, ...]) -> list[str]:
        return [name.removesuffix(".*") for name in layer if module == name or module.startswith(name.removesuffix("*") if
                name.endswith("*") else f"{name}.")]  # fmt: skip

    fitting = {number: max(map(len, found)) for number, layer in enumerate(LAYERS) if (found := names(layer))}
    assert fitting, f"{module} is in no layer"
    exact = [number for number, layer in enumerate(LAYERS) if module in layer]
    return exact[0] if exact else max(fitting, key=lambda number: (fitting[number], number))


def test_no_circle_of_imports() -> None:
    try:
        list(TopologicalSorter(_graph()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_modules_import_downwards_only() -> None:
    upwards = [
        f"{module} imports {other}"
        for module, imported in sorted(_graph().items())
        for other in sorted(imported)
        if _layer(other) > _layer(module)
    ]
    assert not upwards


@pytest.mark.parametrize("server", ["fedtalk.federation.server", "fedtalk.privacy.secagg.server"])
def test_the_server_half_reaches_nothing_of_a_client(server: str) -> None:
    """Not even by way of others: neither clips, nor local training, nor a client's half of the protocol."""
    reached, open_ends = set(), [server]
    while open_ends:
        for module in _graph()[open_ends.pop()] - reached:
            reached.add(module)
            open_ends.append(module)
    clients = ("fedtalk.data", "fedtalk.federation.client", "fedtalk.training.local", "fedtalk.privacy.secagg.client")
    assert reached and not [module for module in reached if module.startswith(clients)]


def test_no_file_is_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES.values()
    }
    assert {name for name, length in lengths.items() if length > LONGEST} <= STILL_LONG
