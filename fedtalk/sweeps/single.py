"""One run of a sweep in one process: ``python -m fedtalk.sweeps.single ARGUMENTS`` is `fedtalk fit` and then `fedtalk test`."""

from __future__ import annotations

import sys

from fedtalk.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    # LightningCLI looks at the process's own arguments where it is given others.
    sys.argv = sys.argv[:1]
    sys.exit(main(["fit", *arguments]) or main(["test", *arguments]))
