"""What a sweep runs: seeds times variations, each run named by the hash of its config and of the code."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml

from fedtalk import version
from fedtalk.commands.errors import own_error
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.paths import expanded_argument

CONFIG = "config"
"""Varied like a key: names config files that are stacked behind the sweep's own."""
BASE = "base"
"""The variation that changes nothing."""
OWN = {
    "seed_everything": "--seeds", "trainer.threads": "--threads", "trainer.default_root_dir": "--folder",
    "trainer.cache_dir": "a config file", "ckpt_path": "nothing: runs go on where they stopped",
}  # fmt: skip
"""Keys that a sweep sets itself or that change no result, and what to use for them."""


RUN_FOLDER = re.compile(r"-seed-\d+-[0-9a-f]{10}$")
"""How the names of runs' folders end."""


@dataclass(frozen=True)
class Variation:
    """One way of running the experiment."""

    name: str
    """As tables show it, such as ``model.adapter.rank=4`` or ``fedavg``."""
    arguments: tuple[str, ...]
    """What stands behind the sweep's own configs on the command line of `fedtalk fit`."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of the sweep."""

    variation: Variation
    seed: int
    key: str
    """Hash of the resolved config, the seed, the threads and the code: what a run's bits depend on on one machine, but for
    files that the config names (clips, a backbone), of which it has the paths alone."""

    @property
    def name(self) -> str:
        return f"{self.variation.name} seed {self.seed}"

    @property
    def folder_name(self) -> str:
        """Readable, and different for each key."""
        return f"{re.sub(r'[^A-Za-z0-9._=-]+', '-', self.variation.name)[:60]}-seed-{self.seed}-{self.key[:10]}"


def parse_seeds(text: str) -> list[int]:
    """Seeds as people write them.

    Raises:
        ConfigurationError: not a list of numbers and ranges, or a seed that occurs twice.

    >>> parse_seeds("0-2,7")
    [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None or (found[2] and int(found[2]) < int(found[1])):
            raise ConfigurationError(f"seeds: expected numbers and rising ranges such as 0-4 or 0,3,7-9, got {text!r}")
        seeds += range(int(found[1]), int(found[2] or found[1]) + 1)
    if len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"seeds: expected each seed once, got {text!r}")
    return seeds


def parse_choices(text: str) -> tuple[str, list[str]]:
    """``KEY=A,B`` to the key and its values; commas inside brackets and braces belong to a value.

    Raises:
        ConfigurationError: no key, or no value.

    >>> parse_choices("model.adapter.targets=[to_q,to_v],[to_v]")
    ('model.adapter.targets', ['[to_q,to_v]', '[to_v]'])
    """
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise ConfigurationError(f"vary: expected KEY=A,B such as model.adapter.rank=2,8, got {text!r}")
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    found = [part.strip() for part in parts]
    if not all(found):
        raise ConfigurationError(f"vary: expected a value between any two commas, got {text!r}")
    return key.strip(), found


def variations(vary: Sequence[str]) -> list[Variation]:
    """All combinations of the values of ``KEY=A,B`` texts, the first values first.

    The key ``config`` takes config files in place of values: ``config=base,configs/fedavg.yaml`` runs once without and once
    with the overlay; several overlays of one variation are joined by ``+``.

    Raises:
        ConfigurationError: a text that can't be read, a key given twice or set by the sweep itself, two variations of one name, a
            missing file.

    >>> [variation.name for variation in variations(["trainer.local.steps=4,8"])]
    ['trainer.local.steps=4', 'trainer.local.steps=8']
    """
    choices = [parse_choices(text) for text in vary]
    keys = [key for key, _ in choices]
    if len(set(keys)) < len(keys):
        raise ConfigurationError(f"vary: expected each key once, got {', '.join(keys)}")
    for key in keys:
        if key in OWN:
            raise ConfigurationError(f"vary: {key} would change nothing, a sweep sets it itself; use {OWN[key]}")
    found = []
    for combination in itertools.product(*(values for _, values in choices)):
        names, arguments = [], []
        for key, value in zip(keys, combination, strict=True):
            if key == CONFIG:
                overlays = _overlays(value)
                names.append("+".join(Path(part).stem for part in overlays) or BASE)
                arguments += [argument for part in overlays for argument in ("--config", part)]
            else:
                names.append(f"{key}={value}")
                arguments += [f"--{key}={value}"]
        found.append(Variation(" ".join(names) or BASE, tuple(arguments)))
    if len({variation.name for variation in found}) < len(found):
        raise ConfigurationError(f"vary: two variations have one name: {', '.join(v.name for v in found)}")
    return found


def _overlays(value: str) -> list[str]:
    """Files of a value such as ``a.yaml+b.yaml``; none of `BASE`."""
    if value == BASE:
        return []
    found, begun = [], ""
    for part in value.split("+"):
        begun = f"{begun}+{part}" if begun else part
        if Path(begun).is_file():  # else the plus may belong to its name, as in c++/a.yaml
            found.append(begun)
            begun = ""
    if begun:
        hint = f"; '{BASE}' stands alone" if BASE in value.split("+") else ""
        raise ConfigurationError(f"vary: expected a config file or '{BASE}' in config=..., got {begun!r}{hint}")
    return found


def resolve(configs: Sequence[str], variation: Variation) -> str:
    """The full config of a variation as YAML, as `fedtalk fit` reads it, without what the sweep sets itself (`OWN`).

    Raises:
        ConfigurationError: `fedtalk fit` refuses it; with its own words.
    """
    from fedtalk.commands.training import fit

    arguments = [*_stacked(configs), *variation.arguments, "--print_config"]
    printed, said = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(said):
            fit([expanded_argument(argument) for argument in arguments])
    except SystemExit as ended:  # also after the config was printed
        if ended.code:
            raise ConfigurationError(f"variation {variation.name}: {said.getvalue().strip()}") from None
    except (ValueError, FedTalkError) as error:
        raise ConfigurationError(f"variation {variation.name}: {own_error(error)}") from error
    settings = yaml.safe_load(printed.getvalue())
    for key in OWN:
        place = settings.get("trainer", {}) if key.startswith("trainer.") else settings
        place.pop(key.removeprefix("trainer."), None)
    return yaml.safe_dump(settings, sort_keys=True)


def _stacked(configs: Sequence[str]) -> list[str]:
    return [argument for config in configs for argument in ("--config", config)]


def plan(configs: Sequence[str], seeds: Sequence[int], vary: Sequence[str], threads: int = 1) -> list[PlannedRun]:
    """All runs, by variation and then by seed; every config is read before anything starts.

    Args:
        configs: config files, stacked.
        seeds: of each variation's runs.
        vary: see `variations`.
        threads: CPU threads of each run.

    Raises:
        ConfigurationError: something that `fedtalk fit` would refuse, or two variations that come to the same config.
    """
    runs: list[PlannedRun] = []
    known: dict[str, str] = {}
    for variation in variations(vary):
        text = resolve(configs, variation)
        if (other := known.setdefault(text, variation.name)) != variation.name:
            raise ConfigurationError(
                f"vary: {other!r} and {variation.name!r} come to the same config, so that nothing would differ; leave out one"
            )
        runs += [PlannedRun(variation, seed, _key(text, seed, threads)) for seed in seeds]
    return runs


def _key(config: str, seed: int, threads: int) -> str:
    return hashlib.sha256(f"{config}\0{seed}\0{threads}\0{code_version()}".encode()).hexdigest()


@cache
def code_version() -> str:
    """Hash of fedtalk's sources and weights and of torch's version: what a run's bits depend on beside its config."""
    digest = hashlib.sha256(torch.__version__.encode())
    root = Path(version.__file__).parent
    for path in sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    for path in sorted((root / "callbacks").rglob("*.py")):  # behind a link in a checkout, which rglob does not follow
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
