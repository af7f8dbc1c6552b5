"""The command line: `fedtalk fit|validate|test|predict` (LightningCLI) and the commands around it."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from fedtalk import __version__
from fedtalk.errors import FedTalkError

TRAINING = ("fit", "validate", "test", "predict")
COMMANDS = ("prepare", "generate", "audit", "ledger", "doctor", "flower")
FLAGS = ("--json", "--dry_run")
"""Options that may be given without a value, which the parser wants for booleans."""

HELP = f"""fedtalk {__version__}: personalised talking-head video, trained federated; no face or voice leaves its owner.

  fedtalk fit      --config configs/isfa.yaml     train by federated rounds; --ckpt_path last goes on where it stopped
  fedtalk fit      --config ... --dry_run         what that will take: bytes, memory, time, also for more clients
  fedtalk validate --config ... --ckpt_path last  held-out loss of a trained adapter
  fedtalk test     --config ... --ckpt_path last  the table of metrics with its controls, contact sheet, videos
  fedtalk predict  --config ... --ckpt_path last  videos of held-out clips
  fedtalk prepare  RAW CLIENTS                    ordinary videos to aligned clips, one folder a person
  fedtalk generate --portrait P --audio A --out O a picture and speech to a speaking face
  fedtalk doctor                                  what this machine can run, and what to do about the rest
  fedtalk audit    RUN                            attacks on a finished run: what they prove about its privacy
  fedtalk ledger   FOLDER                         what a private run has spent, on what, and against whom
  fedtalk flower   keys|server|client             the same rounds across organisations, over Flower

Each command explains itself with --help. A first run: bash scripts/demo.sh
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors a user can act on are one line, not a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # it warns of attributes that its own models store
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in TRAINING + COMMANDS:
        print(
            f"fedtalk: unknown command {arguments[0]!r}; expected one of {', '.join(TRAINING + COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    arguments = [
        f"{argument}=true" if argument in FLAGS and following not in ("true", "false") else argument
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True)
    ]
    try:
        with warnings.catch_warnings():
            # diffusers writes this key itself and then warns about it on reading.
            warnings.filterwarnings("ignore", message=".*block_out_channels.*")
            run_training(arguments) if arguments[0] in TRAINING else run_command(arguments)
    except ValueError as error:
        print(f"fedtalk {arguments[0]}: {_own_error(error)}", file=sys.stderr)
        return 1
    except FedTalkError as error:
        print(f"fedtalk {arguments[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        resume = (
            "; what is done is kept, go on with the same command and --ckpt_path last"
            if arguments[0] == "fit" or arguments[:2] == ["flower", "server"]
            else ""
        )
        print(f"fedtalk {arguments[0]}: {stop or 'interrupted'}{resume}", file=sys.stderr)
        return 128 + getattr(stop, "signal_number", signal.SIGINT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO):
            raise
        print(f"fedtalk {arguments[0]}: {error}; files written before are whole. Free some space or choose another folder.",
              file=sys.stderr)  # fmt: skip
        return 1
    return 0


def _own_error(error: BaseException) -> FedTalkError:
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


def run_training(arguments: Sequence[str]) -> None:
    from lightning.pytorch.cli import LightningCLI

    from fedtalk.callbacks.config import SaveRunConfig
    from fedtalk.data.source import ClipData
    from fedtalk.federation.module import FederatedModule
    from fedtalk.federation.trainer import FederatedTrainer

    class CommandLine(LightningCLI):
        def _parse_ckpt_path(self) -> None:
            """Settings come from the config; Lightning would read some from the checkpoint, and trip over a damaged one."""

    for chatty in ("lightning.pytorch", "lightning.fabric"):  # device tables and tips; warnings stay
        logging.getLogger(chatty).setLevel(logging.WARNING)
    CommandLine(
        FederatedModule,
        ClipData,
        trainer_class=FederatedTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_callback=SaveRunConfig,
        args=None if list(arguments) == sys.argv[1:] else list(arguments),
    )


def run_command(arguments: Sequence[str]) -> None:
    if arguments[0] == "flower":
        from fedtalk.federation.engines.flower.commands import flower

        flower(arguments[1:])
        return
    from jsonargparse import auto_cli

    from fedtalk import commands

    auto_cli(
        getattr(commands, arguments[0]),
        as_positional=arguments[0] in ("prepare", "audit", "ledger"),
        args=list(arguments[1:]),
        prog=f"fedtalk {arguments[0]}",
    )


if __name__ == "__main__":
    sys.exit(main())
