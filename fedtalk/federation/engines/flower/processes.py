"""Flower's own programs as children of ours: found beside this interpreter, quiet, and gone when we are."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.engines.flower import FLOWER_ENVIRONMENT

log = logging.getLogger("fedtalk")

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
GRACE_SECONDS = 10.0
"""Time that a child has to end by itself."""


class Child:
    """One of Flower's programs, running until the block is left."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        folder: Path,
        meanings: Mapping[str, str] | None = None,
        module: str | None = None,
    ) -> None:
        """
        Args:
            program: ``flower-superlink`` or ``flower-supernode``.
            arguments: of its command line.
            folder: for its home and its log, PROGRAM.log.
            meanings: by a phrase of its last words, what that means here; the first that fits is told instead of them.
            module: of Python, that is run in the program's place.

        Raises:
            ConfigurationError: the program isn't installed.
        """
        self.program, self._arguments, self._folder = program, list(arguments), folder
        self._meanings = dict(meanings or {})
        self.log_file = folder / f"{program}.log"
        path = Path(sysconfig.get_path("scripts")) / program
        if not path.exists():
            raise ConfigurationError(f'{path} does not exist; expected Flower: pip install "fedtalk[flower]"')
        self._command = [str(path)] if module is None else [sys.executable, "-m", module]

    def __enter__(self) -> Child:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def start(self, *further: str) -> None:
        """Start it, also after it has ended; with ``further`` arguments, which go before earlier ones of the same name."""
        environment = {**FLOWER_ENVIRONMENT, "FLWR_HOME": str(self._folder.absolute()), **os.environ}
        with self.log_file.open("wb") as output:
            self._process = subprocess.Popen(
                [*self._command, *self._arguments, *further], stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env=environment, preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it when we are ready
            )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        """What it said last, without its chatter, or what is known to be meant by that."""
        lines = [line.strip() for line in COLOUR.sub("", self.log_file.read_text(errors="replace")).splitlines()]
        telling = [line for line in lines if line and "INFO" not in line]
        said = " | ".join(telling[-8:])
        return next((meaning for phrase, meaning in self._meanings.items() if phrase in said), " | ".join(telling[-4:]))

    def check(self) -> None:
        """
        Raises:
            FedTalkError: it has ended.
        """
        if self.ended:
            raise FedTalkError(
                f"{self.program} ended with status {self._process.returncode}; expected it to run as long as this process. "
                f"From {self.log_file}: {self.last_words()}"
            )


def _end_with_parent() -> None:
    """In the child, on Linux: have the kernel end it when its parent dies, even by SIGKILL."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
