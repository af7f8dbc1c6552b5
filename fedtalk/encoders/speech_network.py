"""What shipped networks hear: speech features of people in general, and what the lips do to make such sounds.

A small convolutional student of a large speech encoder (knowledge distillation, Hinton et al. 2015); plain torch, no other
package. Shape suffixes: B windows, F video frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.encoders.mel import BANDS, ROWS_PER_FRAME
from fedtalk.encoders.shipped import ShippedNetwork
from fedtalk.errors import ArtifactError

LIPS = ("opening", "width", "jaw")
"""What the network says of the lips, in distances between the eyes: gap between the inner lips; width of the mouth and depth
of the chin, as deviations from the person's own medians."""
PER_FRAME = 2
"""Feature vectors a video frame (50 a second)."""


class SpeechNetwork(ShippedNetwork):
    """Log-mel rows to features and lips."""

    kind = "speech"

    def __init__(
        self, width: int = 144, dilations: Sequence[int] = (1, 2, 4, 8, 4, 2), dimension: int = 96, dropout: float = 0.1
    ) -> None:
        """
        Args:
            width: channels of the layers.
            dilations: of the residual blocks; they see about a second to either side.
            dimension: length of a feature vector.
            dropout: share of channels dropped while training.
        """
        super().__init__(width=width, dilations=list(dilations), dimension=dimension, dropout=dropout)
        self.into = nn.Conv1d(BANDS, width, 5, stride=ROWS_PER_FRAME // PER_FRAME, padding=2)
        self.blocks = nn.ModuleList(_Block(width, dilation, dropout) for dilation in dilations)
        self.norm = nn.LayerNorm(width)
        self.features = nn.Linear(width, dimension)
        self.lips = nn.Sequential(
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
            nn.Dropout(2 * dropout),
            nn.Conv1d(width, len(LIPS), PER_FRAME, stride=PER_FRAME),
        )
        # Of speech that was seen, so that all of them are learned alike.
        self.register_buffer("lip_mean", torch.tensor([0.10, 0.0, 0.02]))
        self.register_buffer("lip_deviation", torch.tensor([0.07, 0.06, 0.06]))

    lip_mean: Tensor
    lip_deviation: Tensor

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            mel: (B, 4 F, 64) of `fedtalk.encoders.mel.log_mel`, on speech of root mean square 0.1.

        Returns:
            features (B, 2 F, dimension), about unit variance; lips (B, F, 3), see `LIPS`.

        Raises:
            ArtifactError: another shape.
        """
        if mel.ndim != 3 or mel.shape[-1] != BANDS or mel.shape[1] % ROWS_PER_FRAME:
            raise ArtifactError(f"speech network: expected log-mel (B, 4 F, {BANDS}), got {tuple(mel.shape)}")
        hidden = F.gelu(self.into(mel.transpose(1, 2)))
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.norm(hidden.transpose(1, 2))
        lips = self.lips(hidden.transpose(1, 2)).transpose(1, 2)
        return self.features(hidden), lips * self.lip_deviation + self.lip_mean


class _Block(nn.Module):
    """Two convolutions in time beside the identity."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv1d(width, width, 5, dilation=dilation, padding=2 * dilation)
        self.second = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.norm(hidden.transpose(1, 2)).transpose(1, 2)
        return hidden + self.second(self.dropout(F.gelu(self.first(inner))))
