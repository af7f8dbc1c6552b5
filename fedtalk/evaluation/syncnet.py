"""LSE-D and LSE-C by the published SyncNet, where FEDTALK_SYNCNET names its weights (``syncnet_v2.model``).

The network and what is made of its distances: J. S. Chung and A. Zisserman, "Out of time: automated lip sync in the wild",
ACCV-W 2016; as a measure of talking heads: K. R. Prajwal et al., "A Lip Sync Expert Is All You Need", ACM MM 2020. Their crops
are boxes of a face detector, tracked; ours are such a square placed by the eyes: compare with the truth's values beside, and with
published ones by caution.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.errors import ArtifactError
from fedtalk.evaluation.mfcc import mfcc

VARIABLE = "FEDTALK_SYNCNET"
SPAN, ROWS_A_FRAME = 5, 4
"""Frames of a window, and rows of `mfcc` for each."""
REACH = 15
"""Frames either way by which sound is shifted."""
SIDE = 224
HALF_BOX, BELOW_EYES, MARGIN = 1.4, 0.6, 0.4
"""Of the box that a face detector draws, in distances between the eyes: half its side, how far its middle lies below the eyes;
and by what share of half its side the crop is wider on each side, and twice that below."""
PADDING = 110
BATCH = 8


class SyncNet(nn.Module):
    """Embeds five face crops, and the 0.2 s of speech with them, as 1024 numbers each; near where they belong together.

    Modules have the names of the published weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_level(2, 1, 64, 3, padding=1), nn.MaxPool2d(1, 1),
            *_level(2, 64, 192, 3, padding=1), nn.MaxPool2d(3, (1, 2)),
            *_level(2, 192, 384, 3, padding=1), *_level(2, 384, 256, 3, padding=1),
            *_level(2, 256, 256, 3, padding=1), nn.MaxPool2d(3, 2),
            *_level(2, 256, 512, (5, 4)),
        )  # fmt: skip
        side = (0, 1, 1)
        self.netcnnlip = nn.Sequential(
            *_level(3, 3, 96, (5, 7, 7), (1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_level(3, 96, 256, (1, 5, 5), (1, 2, 2), side), nn.MaxPool3d((1, 3, 3), (1, 2, 2), side),
            *_level(3, 256, 256, (1, 3, 3), padding=side), *_level(3, 256, 256, (1, 3, 3), padding=side),
            *_level(3, 256, 256, (1, 3, 3), padding=side), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_level(3, 256, 512, (1, 6, 6)),
        )  # fmt: skip
        self.netfcaud, self.netfclip = (
            nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)) for _ in range(2)
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SyncNet:
        """The network with published weights, ready for use.

        Raises:
            ArtifactError: no file, or none of this network's.
        """
        if not Path(path).is_file():
            raise ArtifactError(f"{VARIABLE}: expected the file syncnet_v2.model, but {path} does not exist")
        network = cls()
        try:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, ValueError, TypeError, AttributeError, OSError, pickle.UnpicklingError) as error:
            raise ArtifactError(
                f"{VARIABLE}: {path} doesn't hold the weights of SyncNet ({str(error).splitlines()[0]}); expected its authors' "
                "syncnet_v2.model"
            ) from error
        return network.eval()

    def embed_faces(self, windows: Tensor) -> Tensor:
        """(B, 3, 5, 224, 224) float BGR in [0, 255] -> (B, 1024)."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))

    def embed_speech(self, windows: Tensor) -> Tensor:
        """(B, 1, 13, 20) of `mfcc` -> (B, 1024)."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))

    @torch.no_grad()
    def scores(self, frames: np.ndarray, audio: np.ndarray, eyes: np.ndarray) -> tuple[float, float]:
        """LSE-D and LSE-C of a clip.

        Of the mean distances between faces and speech shifted by -15 to 15 frames, speech beyond the clip embedded as 0, LSE-D is
        the least, 0 or more, lower is better; LSE-C is the median less the least, 0 or more, higher is better. Clips of fewer
        than some fifty frames are mostly beyond their ends.

        Args:
            frames: (F, H, W, 3) uint8 RGB at 25 a second, F at least 6.
            audio: (640 F,) in [-1, 1].
            eyes: (F, 2, 2) in pixels.

        Raises:
            ArtifactError: fewer frames.
        """
        count = min(len(frames), len(audio) // 640) - SPAN
        if count < 1:
            raise ArtifactError(f"LSE: expected at least {SPAN + 1} frames with their sound, got {len(frames)}")
        crops = torch.from_numpy(face_crops(frames, eyes)).float().permute(3, 0, 1, 2)
        rows = torch.from_numpy(mfcc(np.clip(np.round(audio * 32768.0), -32768, 32767))).float().T
        faces = torch.cat([
            self.embed_faces(torch.stack([crops[:, start : start + SPAN] for start in part.tolist()]))
            for part in torch.arange(count).split(BATCH)
        ])  # fmt: skip
        speech = self.embed_speech(
            torch.stack([rows[None, :, s * ROWS_A_FRAME : (s + SPAN) * ROWS_A_FRAME] for s in range(count)])
        )
        padded = F.pad(speech, (0, 0, REACH, REACH))
        distances = torch.stack([
            F.pairwise_distance(faces, padded[shift : shift + count]).mean() for shift in range(2 * REACH + 1)
        ])  # fmt: skip
        return float(distances.min()), float(distances.median() - distances.min())


def face_crops(frames: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """The square around each face, (F, 224, 224, 3) uint8 BGR, grey where it is beyond the frame."""
    found = []
    for frame, pair in zip(frames, eyes, strict=True):
        unit = float(np.linalg.norm(pair[1] - pair[0]))
        reach = HALF_BOX * unit * (1 + MARGIN)
        x, y = pair.mean(0)
        left, top, scale = x - reach, y + (BELOW_EYES - HALF_BOX) * unit, SIDE / (2 * reach)
        placed = np.array([[scale, 0, -scale * left], [0, scale, -scale * top]])
        picture = np.ascontiguousarray(frame[..., ::-1])
        found.append(
            cv2.warpAffine(picture, placed, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=(PADDING,) * 3)
        )
    return np.stack(found)


def syncnet() -> SyncNet | None:
    """The network that FEDTALK_SYNCNET names; None where it names nothing.

    Raises:
        ArtifactError: it names something else.
    """
    path = os.environ.get(VARIABLE)
    return SyncNet.load(path) if path else None


def _level(
    dimensions: int,
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
) -> list[nn.Module]:
    convolution, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dimensions - 2]
    return [convolution(inputs, outputs, kernel, stride, padding), norm(outputs), nn.ReLU()]  # type: ignore[arg-type]
