"""The command line: `fedtalk COMMAND`, from the table of `fedtalk.commands`; errors a user can act on are one line."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from fedtalk.commands import COMMANDS, TABLE
from fedtalk.commands.errors import own_error
from fedtalk.errors import FedTalkError
from fedtalk.paths import expanded_argument
from fedtalk.version import __version__


def help_text() -> str:
    """What `fedtalk --help` prints."""
    width = max(len(command.usage) for command in TABLE)
    return "\n".join([
        f"fedtalk {__version__}: personalised talking-head video, trained federated; no face or voice leaves its owner.",
        "",
        *(f"  fedtalk {command.usage:<{width}}  {command.summary}" for command in TABLE),
        "",
        "Each command explains itself with --help. A first run: bash scripts/demo.sh",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit status: 0, 1 for an error that a user can act on, 2 for an unknown command, 128 + N after signal N.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # it warns of attributes that its own models store
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        print(f"fedtalk: unknown command {name!r}; expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            # diffusers writes this key itself and then warns about it on reading.
            warnings.filterwarnings("ignore", message=".*block_out_channels.*")
            _run(name, [expanded_argument(argument) for argument in arguments])
    except ValueError as error:
        print(f"fedtalk {name}: {own_error(error)}", file=sys.stderr)
        return 1
    except FedTalkError as error:
        print(f"fedtalk {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        resume = (
            "; what is done is kept, go on with the same command and --ckpt_path last"
            if name == "fit" or arguments[:2] == ["flower", "server"]
            else "; finished runs are kept, go on with the same command"
            if name == "sweep"
            else ""
        )
        print(f"fedtalk {name}: {stop or 'interrupted'}{resume}", file=sys.stderr)
        return 128 + getattr(stop, "signal_number", signal.SIGINT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO):
            raise
        print(f"fedtalk {name}: {error}; files written before are whole. Free some space or choose another folder.",
              file=sys.stderr)  # fmt: skip
        return 1
    return 0


def _run(name: str, arguments: Sequence[str]) -> None:
    command = COMMANDS[name]
    if command.own_parser:
        command.function(list(arguments[1:]))
        return
    from jsonargparse import auto_cli

    from fedtalk.commands.parser import CommandParser, with_flags

    auto_cli(
        command.function,
        args=with_flags(arguments[1:]),
        prog=f"fedtalk {name}",
        parser_class=CommandParser,
    )


if __name__ == "__main__":
    sys.exit(main())
