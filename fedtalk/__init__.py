"""fedtalk: personalised talking-head video, trained federated.

>>> import fedtalk
>>> fedtalk.LocalTraining(steps=4).steps
4
"""

import importlib
import logging
from typing import Any

from fedtalk.version import __version__ as __version__

_OFFERED = {
    "Adapter": "fedtalk.talker.adapters",
    "Aggregation": "fedtalk.callbacks.aggregation",
    "Clip": "fedtalk.data.clip",
    "ClipData": "fedtalk.data.source",
    "FedAvg": "fedtalk.callbacks.aggregation",
    "FederatedModule": "fedtalk.training.module",
    "FederatedTrainer": "fedtalk.federation.trainer",
    "FixedCohort": "fedtalk.federation.cohort",
    "FolderData": "fedtalk.data.folder_data",
    "ISFA": "fedtalk.callbacks.aggregation",
    "LocalTraining": "fedtalk.training.local",
    "Krum": "fedtalk.callbacks.baselines",
    "Median": "fedtalk.callbacks.baselines",
    "Oracle": "fedtalk.callbacks.baselines",
    "PersonalTraining": "fedtalk.callbacks.personal",
    "Placement": "fedtalk.training.placement",
    "PoissonCohort": "fedtalk.federation.cohort",
    "Privacy": "fedtalk.privacy.settings",
    "RoundCallback": "fedtalk.callbacks.base",
    "ServerOptimizer": "fedtalk.federation.server",
    "Scaffold": "fedtalk.callbacks.baselines",
    "Standing": "fedtalk.callbacks.aggregation",
    "SynthTalkData": "fedtalk.data.synthtalk_data",
    "Talker": "fedtalk.talker.module",
    "TrimmedMean": "fedtalk.callbacks.baselines",
    "Uniform": "fedtalk.callbacks.baselines",
    "Videos": "fedtalk.callbacks.video",
    "generate": "fedtalk.talker.production.generate",
}
"""What a run is built with; imported when it is first asked for, since the libraries behind it take seconds."""

__all__ = sorted(_OFFERED)

# When it is imported, which peft does, it warns of 4-bit kernels that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name in _OFFERED:
        return getattr(importlib.import_module(_OFFERED[name]), name)
    raise AttributeError(f"module 'fedtalk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_OFFERED])
