"""On a GPU the talker gives what it gives on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_dub_on_a_gpu_is_that_of_a_cpu_but_for_rounding(make_talker: Callable, clips: list) -> None:
    clip, reference = clips[0], clips[1].reference(0)
    made = {}
    for device in ("cpu", "cuda"):
        talker = make_talker().to(device)
        made[device] = np.stack([frame.numpy() for frame in talker.dub(clip, reference)]).astype(int)
    assert np.abs(made["cpu"] - made["cuda"]).mean() < 1
