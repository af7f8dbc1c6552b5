"""Golden states of tiny runs: moving code about must not change a bit.

Bits depend on the processor and on torch, so they are compared where both are those of the record; everywhere else the states
must agree to half a percent: rounding became a tenth of one by Yogi and AdamW, on three processors. A change that is meant to
change results records new ones: ``RECORD_GOLDEN=1 pytest tests/federation/test_golden.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.server import ServerOptimizer
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.privacy.clipping import AdaptiveClipping
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.talker.backbone import Architecture, Backbone
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import copy_state

GOLDEN = Path(__file__).with_name("golden.json")


def _machine() -> str:
    """What bits depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    processor = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    what = [platform.machine(), processor, torch.__version__, np.__version__, torch.backends.cpu.get_cpu_capability()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _compare(name: str, state: dict[str, torch.Tensor]) -> None:
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    digest = hashlib.sha256(b"".join(state[key].numpy().tobytes() for key in sorted(state))).hexdigest()[:16]
    norms = [float(state[key].double().norm()) for key in sorted(state)]
    assert max(norms) > 0.01  # or nothing was learned
    if os.environ.get("RECORD_GOLDEN"):
        golden[name] = {"machine": _machine(), "digest": digest, "norms": norms}
        GOLDEN.write_text(json.dumps(golden) + "\n")
    kept = golden[name]
    assert norms == pytest.approx(kept["norms"], rel=5e-3, abs=1e-6)
    if kept["machine"] == _machine():
        assert digest == kept["digest"]


def test_a_talkers_adapter(make_talker: Callable[..., Talker], tiny_architecture: Architecture, tmp_path: Path) -> None:
    """ISFA, FedProx, a kept optimizer, a cohort that is drawn: everything but privacy. A network of two levels."""
    torch.manual_seed(2)
    Backbone.build(replace(tiny_architecture, channels=[32, 64])).save(tmp_path / "backbone")
    talker = make_talker(backbone=str(tmp_path / "backbone"))
    trainer = FederatedTrainer(
        rounds=3,
        cohort=PoissonCohort(0.8),
        local=LocalTraining(steps=2, batch_size=2, learning_rate=1e-2, proximal=0.1, keep_optimizer=True),
        aggregation=ISFA(gamma=1.0, scores="paper", server_optimizer=ServerOptimizer(name="yogi", learning_rate=0.1)),
        validate_every=0,
        seed=3,
        accelerator="cpu",
        default_root_dir=str(tmp_path / "run"),
        cache_dir=str(tmp_path / "cache"),
    )
    trainer.fit(talker, SynthTalkData(speakers=3, clips=1, held_out=1, frames=12, size=32, seed=0))
    _compare("talker", copy_state(talker.exchanged_parameters()))


def test_a_private_run(run: Callable, people: dict) -> None:
    """Clipping, adaptive bound, secure sum and seeded noise."""
    private = Privacy(
        clip_norm=0.5, assumptions=Assumptions(0.0, 0.3), noise_multiplier=1.0, delta=1e-2, accountant="rdp",
        adaptive_clipping=AdaptiveClipping(), insecure_noise_seed=4,
    )  # fmt: skip
    _compare(
        "private", run(people, ISFA(gamma=2.0, scores="paper"), privacy=private, rounds=3, minimum_clients=3).state
    )
