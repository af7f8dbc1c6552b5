"""A parser whose errors are one line, which takes options by their whole names and offers the nearest for an unknown one."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

FLAGS = ("--json", "--dry_run", "--overwrite", "--mark", "--keep_picture")
"""Options that may be given without a value, which the parser wants for booleans."""


class _OneLine(ArgumentParser):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def error(self, message: str, ex: Exception | None = None) -> Any:
        if not self.exit_on_error:
            super().error(message, ex)
        print(
            f"{self.prog.replace('[options] ', '')}: {one_line(message)}{offer(message, self.names)}", file=sys.stderr
        )
        sys.exit(2)

    @property
    def names(self) -> list[str]:
        """Of all options, those of sub-commands included."""
        parsers = [self, *getattr(self._subcommands_action, "_name_parser_map", {}).values()]
        return [name.lstrip("-") for parser in parsers for action in parser._actions for name in action.option_strings]


class CommandParser(_OneLine):
    """Of commands whose signature is their command line."""


class TrainingParser(_OneLine, LightningArgumentParser):
    """Of commands over a `LightningCLI`."""


def one_line(message: str) -> str:
    """A parser's message without line breaks and Python's names of types; of a setting within others, where it is and no more.

    >>> one_line("Parser key \\"rounds\\":\\n  Expected a <class 'int'>. Got value: many")
    'Parser key "rounds": Expected a int. Got value: many'
    """
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", message)
    text = " ".join(text.replace("typing.Literal", "one of ").split())
    parts = re.split(r'Parser key "([^"]+)": ', text)
    keys, said = parts[1::2], parts[2::2]
    if "Union" not in text or not all("Union subtypes" in outer for outer in said[:-1]):
        return text
    expected = re.findall(r"Expected an? (.+?)(?=\. Got value| - | Given|$)", said[-1])
    got = re.search(r"(?:Got|Given) value: (.+?)(?= - |$)", said[-1])
    wanted = dict.fromkeys(one for one in expected if one != "NoneType")
    if not wanted or got is None:
        return text
    return f'Parser key "{".".join(keys)}": Expected {" or ".join(wanted)}. Got value: {got[1]}'


def offer(message: str, names: Sequence[str]) -> str:
    """The nearest of the names that exist, for the one that a message complains about.

    >>> offer("unrecognized arguments: --trainer.round 3", ["trainer.rounds", "trainer.local"])
    '. Did you mean --trainer.rounds?'
    """
    found = re.search(r"(?:[Uu]nrecognized arguments:|[Kk]ey|[Oo]ption) ['\"]?(?:--)?([\w.]+)", message)
    near = difflib.get_close_matches(found[1], names, 1, 0.8) if found else []
    return f". Did you mean --{near[0]}?" if near and found and near[0] != found[1] else ""


def with_flags(arguments: Sequence[str]) -> list[str]:
    """Flags with the value that the parser wants.

    >>> with_flags(["doctor", "--json"])
    ['doctor', '--json=true']
    """
    return [
        f"{argument}=true" if argument in FLAGS and following not in ("true", "false") else argument
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True)
    ]
