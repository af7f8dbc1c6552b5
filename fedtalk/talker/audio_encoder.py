"""Audio encoder: a window of speech features a video frame to the tokens that the denoiser attends to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.encoders.speech import TOKENS


class AudioEncoder(nn.Module):
    """Feature windows to tokens, one token a video frame of the window; with a learned null for absent audio."""

    def __init__(self, dimension: int, per_frame: int, width: int) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.inner = nn.Conv1d(dimension, width, 3, padding=1)
        self.pool = nn.Conv1d(width, width, per_frame, stride=per_frame)
        self.mix = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        self.position = nn.Parameter(0.02 * torch.randn(TOKENS, width))
        self.null = nn.Parameter(0.02 * torch.randn(TOKENS, width))

    def forward(self, windows: Tensor, present: Tensor) -> Tensor:
        """
        Args:
            windows: (N, TOKENS * per_frame, dimension).
            present: (N,) bool; False replaces the tokens by the learned null.

        Returns:
            (N, TOKENS, width).
        """
        hidden = F.gelu(self.inner(windows.transpose(1, 2)))
        hidden = F.gelu(self.pool(hidden))
        tokens = self.norm((hidden + self.mix(hidden)).transpose(1, 2)) + self.position
        return torch.where(present[:, None, None], tokens, self.null)
