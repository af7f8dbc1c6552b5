"""One rule for all paths: ``~`` and variables mean what they mean in a shell, on the command line and in config files alike."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from fedtalk.errors import ConfigurationError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expanded(text: str) -> str:
    """A value with ``~`` and ``$NAME`` or ``${NAME}`` replaced; a text without these as it is.

    Raises:
        ConfigurationError: there is no such variable, or no such user.

    >>> import os; os.environ["FEDTALK_EXAMPLE"] = "/data"
    >>> expanded("$FEDTALK_EXAMPLE/clips"), expanded("runs/isfa")
    ('/data/clips', 'runs/isfa')
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise ConfigurationError(
                f"{text}: expected ${name} to be set in the environment, it is not; export it first"
            )
        return os.environ[name]

    result = _VARIABLE.sub(value, text)
    if result.startswith("~"):
        result = os.path.expanduser(result)
        if result.startswith("~"):
            raise ConfigurationError(f"{text}: expected ~ or ~USER with a user of this machine, got no such user")
    return result


def expanded_argument(argument: str) -> str:
    """A token of a command line, the value after ``=`` included.

    >>> expanded_argument("--trainer.rounds=3")
    '--trainer.rounds=3'
    """
    option, equals, value = argument.partition("=")
    return f"{option}={expanded(value)}" if option.startswith("--") and equals else expanded(argument)


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A nested value of dicts and lists with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: map_texts(part, change) for name, part in value.items()}
    if isinstance(value, list):
        return [map_texts(part, change) for part in value]
    return value
