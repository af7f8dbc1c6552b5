"""Work in a forked process, which may be killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def apart(work: Callable[[], None]) -> int:
    """Do it in a process of its own; returns the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
