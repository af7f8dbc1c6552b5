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
    """Log-mel rows to features, and those to lips.

    Lips are read from the features and from nothing else: a teacher that has heard thousands of people knows what they have
    in common, a dozen people whose lips were seen don't.
    """

    kind = "speech"

    def __init__(
        self,
        width: int = 192,
        dilations: Sequence[int] = (1, 2, 3, 4, 4, 3, 2),
        dimension: int = 96,
        dropout: float = 0.1,
    ) -> None:
        """
        Args:
            width: channels of the layers.
            dilations: of the residual blocks; with the lips' layers they see a second to either side.
            dimension: length of a feature vector.
            dropout: share of channels dropped while training.
        """
        super().__init__(width=width, dilations=list(dilations), dimension=dimension, dropout=dropout)
        self.into = nn.Conv1d(BANDS, width, 5, stride=ROWS_PER_FRAME // PER_FRAME, padding=2)
        self.blocks = nn.ModuleList(_DilatedBlock(width, dilation, dropout) for dilation in dilations)
        self.norm = nn.LayerNorm(width)
        self.features = nn.Linear(width, dimension)
        self.lips = _Lips(PER_FRAME * dimension)
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
            features (B, 2 F, dimension), of variance up to one; lips (B, F, 3), see `LIPS`.

        Raises:
            ArtifactError: another shape.
        """
        if mel.ndim != 3 or mel.shape[-1] != BANDS or mel.shape[1] % ROWS_PER_FRAME:
            raise ArtifactError(f"speech network: expected log-mel (B, 4 F, {BANDS}), got {tuple(mel.shape)}")
        hidden = F.gelu(self.into(mel.transpose(1, 2)))
        for block in self.blocks:
            hidden = block(hidden)
        features = self.features(self.norm(hidden.transpose(1, 2)))
        return features, self.lips_of(features)

    def lips_of(self, features: Tensor) -> Tensor:
        """(B, F, 3) lips that belong to features (B, 2 F, dimension)."""
        lips = self.lips(features.unflatten(1, (-1, PER_FRAME)).flatten(2).transpose(1, 2)).transpose(1, 2)
        return lips * self.lip_deviation + self.lip_mean


class _Lips(nn.Module):
    """Features of frames (B, D, F) to lips (B, 3, F) in their own deviations; sees five frames to either side."""

    def __init__(self, inputs: int, width: int = 128, dropout: float = 0.5) -> None:
        super().__init__()
        self.into = nn.Conv1d(inputs, width, 7, padding=3)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.out = nn.Conv1d(width, len(LIPS), 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.gelu(self.into(features))
        for layer in self.layers:
            hidden = hidden + F.gelu(layer(self.dropout(hidden)))
        return self.out(self.dropout(hidden))


class _DilatedBlock(nn.Module):
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
