"""LPIPS, FID and KID through torchmetrics, where their packages and weights are; and why not, where they aren't.

Nothing is downloaded: weights are taken from torch hub's checkpoint folder, where the packages would put them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fedtalk.evaluation.syncnet import VARIABLE

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's Inception network."""
ALEXNET = "alexnet-owt-7be5be79.pth"
"""torchvision's, which LPIPS reads with the linear layers that torchmetrics brings."""
KID_SUBSET = 50


def _missing(package: str, weights: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return f"the package {package.replace('_', '-')} is not installed"
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights
    return None if path.is_file() else f"its weights are not at {path}"


def _without_syncnet() -> str | None:
    if os.environ.get(VARIABLE):
        return None
    return (
        f"{VARIABLE} names no weights of SyncNet (syncnet_v2.model); `sync` is fedtalk's own network under its own name"
    )


def unavailable() -> dict[str, str]:
    """Measures that can't be taken here, each with the reason."""
    reasons = {
        "lpips": _missing("torchvision", ALEXNET),
        "fid": _missing("torch_fidelity", INCEPTION),
        "kid": _missing("torch_fidelity", INCEPTION),
        **dict.fromkeys(("lse_d", "lse_c"), _without_syncnet()),
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def set_scores(generated: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    """LPIPS (mean over frames), FID and KID of all generated against all true frames, as far as they are available.

    Args:
        generated: clips (F, H, W, 3) uint8.
        truth: clips of the same shapes.
    """
    missing = unavailable()
    one, other = (torch.from_numpy(np.concatenate(list(clips))).permute(0, 3, 1, 2) for clips in (generated, truth))
    found: dict[str, float] = {}
    if "lpips" not in missing:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        lpips = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        for a, b in zip(one.split(16), other.split(16), strict=True):
            lpips.update(a / 255, b / 255)
        found["lpips"] = float(lpips.compute())
    if "fid" not in missing:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        fid = FrechetInceptionDistance(feature=2048)
        kid = KernelInceptionDistance(feature=2048, subset_size=min(KID_SUBSET, len(one)))
        for measure in (fid, kid):
            for a, b in zip(one.split(16), other.split(16), strict=True):
                measure.update(b, real=True)
                measure.update(a, real=False)
        found["fid"], found["kid"] = float(fid.compute()), float(kid.compute()[0])
    return found
