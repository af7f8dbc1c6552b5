"""The commands of `fedtalk`, one file each: what its docstring says of it is its line in `fedtalk --help`.

Such a line is "`fedtalk NAME AND WHAT IS GIVEN TO IT`: what it does."; the file's function of that name is run. Its
signature is the command line, unless it takes all ``arguments`` as they are.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Command:
    """One command."""

    usage: str
    """Its name and what is usually given to it."""
    summary: str
    module: str
    """Where its function is, which has the command's name; imported when the command is run."""

    @property
    def name(self) -> str:
        return self.usage.split()[0]

    @property
    def function(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.name)

    @property
    def own_parser(self) -> bool:
        """Whether the function is given the arguments as they are."""
        return list(inspect.signature(self.function).parameters) == ["arguments"]


def _found() -> list[Command]:
    """Read and not imported: most commands need libraries that take seconds."""
    commands = []
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for usage, summary in re.findall(r"^`fedtalk (.+?)`: (.+)\.$", said, re.MULTILINE):
            commands.append(Command(usage, summary, f"{__name__}.{path.stem}"))
    return commands


TABLE = sorted(_found(), key=lambda command: command.name)
COMMANDS = {command.name: command for command in TABLE}
