"""What the processes of a sweep's runs find in their environment."""

from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY")
"""Variables that libraries read once, when they are loaded."""


def run_environment(threads: int) -> dict[str, str]:
    """Of a run's process: as many threads as it was given, and threads that wait without keeping a core busy."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
    }
