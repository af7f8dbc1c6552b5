"""Errors of the parser, as ours."""

from __future__ import annotations

from fedtalk.errors import FedTalkError


def own_error(error: BaseException) -> FedTalkError:
    """The error of ours under a parser's: jsonargparse wraps what a constructor raises in a ValueError for each level.

    Raises:
        BaseException: the error itself, if it has none of ours behind it.
    """
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, FedTalkError):
            return behind
        behind = behind.__cause__ or behind.__context__
    raise error
