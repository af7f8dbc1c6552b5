"""Settings that must be of a few choices or within a range; each error says key, expectation and what was got."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

from fedtalk.errors import ConfigurationError


def check_choice(key: str, got: object, choices: Any, hint: str = "") -> None:
    """
    Args:
        key: of the setting.
        got: its value.
        choices: a ``Literal`` or names.
        hint: goes after the choices.

    Raises:
        ConfigurationError: it is none of them.

    >>> check_choice("local.schedule", "linear", ("constant", "cosine"))
    Traceback (most recent call last):
    fedtalk.errors.ConfigurationError: local.schedule: expected one of constant, cosine, got 'linear'
    """
    allowed: Collection[Any] = get_args(choices) or choices
    if got not in allowed:
        raise ConfigurationError(f"{key}: expected one of {', '.join(allowed)}{hint}, got {got!r}")


def check_least(section: str, least: float, **settings: float | None) -> None:
    """
    Args:
        section: of the config.
        least: what each setting must be, 0 or more.
        settings: by name; None for those that aren't set.

    Raises:
        ConfigurationError: one is below, or not finite.

    >>> check_least("local", 1, steps=20, batch_size=0)
    Traceback (most recent call last):
    fedtalk.errors.ConfigurationError: local.batch_size: expected at least 1, got 0
    """
    for name, value in settings.items():
        if value is not None and not least <= value < float("inf"):
            raise ConfigurationError(f"{section}.{name}: expected at least {least:g}, got {value}")


def check_above(section: str, most: float, **settings: float | None) -> None:
    """
    Args:
        section: of the config.
        most: what settings may be; they must be above 0.
        settings: by name; None for those that aren't set.

    Raises:
        ConfigurationError: one is out of range.

    >>> check_above("cohort", 1, rate=0)
    Traceback (most recent call last):
    fedtalk.errors.ConfigurationError: cohort.rate: expected a number above 0, at most 1, got 0
    """
    for name, value in settings.items():
        if value is not None and not 0 < value <= most:
            raise ConfigurationError(f"{section}.{name}: expected a number above 0, at most {most:g}, got {value}")


def check_share(section: str, **settings: float) -> None:
    """
    Args:
        section: of the config.
        settings: by name.

    Raises:
        ConfigurationError: one is outside [0, 1].

    >>> check_share("data", unreliable=30)
    Traceback (most recent call last):
    fedtalk.errors.ConfigurationError: data.unreliable: expected a share in [0, 1], got 30
    """
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise ConfigurationError(f"{section}.{name}: expected a share in [0, 1], got {value}")
