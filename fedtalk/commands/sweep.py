"""`fedtalk sweep --config C --seeds 0-4`: the same run with several seeds and variations, with intervals and tests."""

from fedtalk.sweeps.command import sweep

__all__ = ["sweep"]
