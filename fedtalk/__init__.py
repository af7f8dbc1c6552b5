"""fedtalk: personalised talking-head video, trained federated."""

import logging
from typing import Any

from fedtalk.version import __version__ as __version__

# When it is imported, which peft does, it warns of 4-bit kernels that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    """`fedtalk.generate`, found when it is asked for: it imports torch."""
    if name == "generate":
        from fedtalk.talker.production.generate import generate

        return generate
    raise AttributeError(f"module 'fedtalk' has no attribute {name!r}")
