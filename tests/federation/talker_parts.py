"""What worker processes that train a talker must be able to import; without it those of `worker_parts` start sooner."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedtalk.talker.module import Talker
from fedtalk.training.module import Prepared


class ExactTalker(Talker):
    """In 64-bit numbers, so that nothing is left of rounding, which AdamW enlarges."""

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        drawn = super().draw_batch(clips, size, generator)
        return {name: value.double() if value.is_floating_point() else value for name, value in drawn.items()}
