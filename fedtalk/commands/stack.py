"""Configs that stack: an overlay comes after what it changes, and none takes a promise away without being told to."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from fedtalk.errors import ConfigurationError
from fedtalk.paths import expanded

log = logging.getLogger("fedtalk")

SECTIONS = {"model", "data", "trainer"}
"""Of a config that is whole; one that lacks any is an overlay."""


def expand_config(config: Namespace) -> None:
    """Replace ``~`` and variables in every text of a parsed config, in place."""
    for key, value in list(config.items()):
        if isinstance(value, str):
            config[key] = expanded(value)


def named_configs(arguments: Sequence[str]) -> list[str]:
    """The config files of a command line, as far as they exist.

    >>> named_configs(["fit", "--config", __file__, f"--config={__file__}", "--trainer.rounds", "3"]) == [__file__, __file__]
    True
    """
    following = zip(arguments, [*arguments[1:], ""], strict=True)
    named = [after if part in ("-c", "--config") else part.partition("--config=")[2] for part, after in following]
    return [name for name in named if name and Path(expanded(name)).is_file()]


def check_stack(files: Sequence[str], given: Collection[str] = ()) -> None:
    """Refuse an overlay that comes before what it is to change; say so of one that changes nothing.

    Args:
        files: configs in the order in which they were given.
        given: sections that the command line itself gives.

    Raises:
        ConfigurationError: there is no whole config, or an overlay comes before one.
    """
    contents = [_read(file) for file in files]
    whole = [set(content) >= SECTIONS for content in contents]
    if contents and not any(whole) and not given:
        raise ConfigurationError(
            f"--config {files[0]} is an overlay, without {' and '.join(sorted(SECTIONS - set(contents[0])))}: expected a whole "
            f"config before it; put isfa.yaml before it: --config configs/isfa.yaml --config {files[0]}"
        )
    last = max((number for number, is_whole in enumerate(whole) if is_whole), default=0)
    for number in range(last):
        if not whole[number]:
            raise ConfigurationError(
                f"--config {files[number]} is an overlay and comes before {files[last]}, which would undo it: expected overlays "
                f"after what they change; put {files[last]} before it"
            )
    merged: dict[str, Any] = {}
    for file, content in zip(files, contents, strict=True):
        after = _merged(merged, content)
        if after == merged:
            log.warning("--config %s changes nothing: the configs before it say all of it already", file)
        merged = after


def check_promises(files: Sequence[str], config: Namespace) -> None:
    """Refuse a stack that loses the privacy which one of its configs, or the run in its folder, promises.

    Raises:
        ConfigurationError: and ``trainer.allow_unprivate`` isn't set.
    """
    trainer = config["trainer"]
    if trainer["allow_unprivate"]:
        return
    got = _promise(trainer.get("privacy"))
    saved = Path(trainer["default_root_dir"]) / "config.yaml"
    for file in [*files, *([str(saved)] if saved.exists() else [])]:
        promised = _promise((_read(file).get("trainer") or {}).get("privacy"))
        lost = promised - got
        if lost:
            raise ConfigurationError(
                f"trainer.privacy: {file} promises {' and '.join(sorted(lost))}, and this run would be without: expected "
                "another config not to take it away. Leave out what sets trainer.privacy, or say --trainer.allow_unprivate true "
                "(and use another trainer.default_root_dir)"
            )


def _promise(privacy: Any) -> set[str]:
    """What privacy settings promise, in words."""
    if not privacy:
        return set()
    noised = privacy.get("target_epsilon") is not None or privacy.get("noise_multiplier") is not None
    sealed = privacy.get("secure_aggregation", True)
    return ({"differential privacy"} if noised else set()) | ({"secure aggregation"} if sealed else set())


def _read(file: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(expanded(file)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"--config {file} can't be read ({type(error).__name__}); expected a YAML file"
        ) from error
    return content if isinstance(content, dict) else {}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As the parser stacks: dicts by key, everything else as a whole."""
    result = dict(base)
    for key, value in over.items():
        known = result.get(key)
        result[key] = _merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return result
