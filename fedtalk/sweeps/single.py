"""One run of a sweep in one process: ``python -m fedtalk.sweeps.single ARGUMENTS`` is `fedtalk fit` and then `fedtalk test`."""

from __future__ import annotations

import sys

from fedtalk.cli import main

if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # or what is printed stands behind a later error
    sys.exit(main(["fit", *sys.argv[1:]]) or main(["test", *sys.argv[1:]]))
