"""`fedtalk flower keys|server|client`: the same rounds across organisations, over Flower."""

from fedtalk.federation.engines.flower.commands import flower

__all__ = ["flower"]
