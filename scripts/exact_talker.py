"""A talker whose results can be compared to the last digits; workers import it by this name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedtalk.talker.module import Talker
from fedtalk.training.module import Prepared


class ExactTalker(Talker):
    """Draws batches in 64-bit numbers, so that nothing is left of rounding, which AdamW enlarges; its denoiser is to be too."""

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        drawn = super().draw_batch(clips, size, generator)
        return {name: value.double() if value.is_floating_point() else value for name, value in drawn.items()}
