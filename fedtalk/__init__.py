"""fedtalk: personalised talking-head video, trained federated."""

import logging

__version__ = "0.1.0"

# When it is imported, which peft does, it warns of 4-bit kernels that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
