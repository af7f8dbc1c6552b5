"""The SuperLink as a program: ``python -m fedtalk.federation.engines.flower.superlink_program``, started by the server."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedtalk.federation.engines.flower.flwr_internals import run_superlink


def main() -> None:
    """Run it with what the command line says."""
    parser = argparse.ArgumentParser(description=run_superlink.__doc__)
    for name, kind in (
        ("host", str), ("port", int), ("certificate", str), ("private-key", str), ("secret", Path), ("inside", Path),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, required=True)
    run_superlink(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
