"""Stock face recognisers as measures of identity: an embedding a frame, whose cosine tells people apart.

They judge what fedtalk makes, so no objective knows them (dlib's also tells clients whether their own clips are of one person):
`recogniser("dlib")` comes with the Python packages, "sface" needs a file that the user fetches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from fedtalk.data.faces import model_file
from fedtalk.data.framing import similarity_transform
from fedtalk.data.pixels import to_unit
from fedtalk.encoders.dlib_recogniser import DlibRecogniser, unit_length
from fedtalk.encoders.identity import IdentityEncoder
from fedtalk.errors import ArtifactError, ConfigurationError


class Recogniser(Protocol):
    """Turns aligned or unaligned face frames into embeddings."""

    name: str

    def embed(self, frames: np.ndarray, eyes: np.ndarray, mouth: np.ndarray) -> np.ndarray:
        """One embedding a frame.

        Args:
            frames: (F, H, W, 3) uint8 RGB.
            eyes: (F, 2, 2), centre of the eye on the left and on the right of the picture, (x, y) in pixels.
            mouth: (F, 2), midpoint of the corners of the mouth.

        Returns:
            (F, D) float32 of unit length; the cosine of two is their dot product.
        """
        ...


def recogniser(name: str, **options: Any) -> Recogniser:
    """A recogniser by name: "sface", "dlib" or "synthtalk"; ``options`` are its constructor's.

    Raises:
        ConfigurationError: unknown name or option.
        ArtifactError: a package or model file that it needs is absent; the message says where to get it.
    """
    if name not in RECOGNISERS:
        raise ConfigurationError(f"recogniser: expected one of {', '.join(sorted(RECOGNISERS))}, got {name!r}")
    try:
        return RECOGNISERS[name](**options)
    except TypeError as error:
        raise ConfigurationError(f"options of recogniser {name!r}: {error}") from error


def default_recogniser(real: bool = True) -> Recogniser:
    """The best recogniser at hand: "sface" where FEDTALK_SFACE names its file, else one that needs no file.

    That is "dlib" for real faces and "synthtalk" for made-up ones, which it was trained on and reads far faster. Their
    cosines are on different scales, so results name the recogniser beside the number.

    Args:
        real: whether the faces are of real people.

    Raises:
        ArtifactError: FEDTALK_SFACE is set, but not to an SFace model; or dlib is not installed.
    """
    if os.environ.get("FEDTALK_SFACE"):
        return recogniser("sface")
    return recogniser("dlib" if real else "synthtalk")


class SFaceRecogniser:
    """OpenCV's SFace, 128 numbers a face; two pictures with a cosine above 0.363 count as one person there.

    Args:
        path: ``face_recognition_sface_2021dec.onnx``; without it the environment variable FEDTALK_SFACE.

    Source: Y. Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", 2021.
    """

    name = "sface"
    _SIDE = 112
    # where the network expects the eyes and the middle between the corners of the mouth, in 112 x 112 pixels
    _TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.1396, 92.2848]])

    def __init__(self, *, path: str | os.PathLike[str] | None = None) -> None:
        model = model_file(path, "FEDTALK_SFACE", "recogniser 'sface'", "face_recognition_sface_2021dec.onnx")
        try:
            self._network = cv2.FaceRecognizerSF.create(str(model), "")
        except cv2.error as error:
            raise ArtifactError(f"recogniser 'sface': {model} is not an SFace model ({error.err})") from error

    def embed(self, frames: np.ndarray, eyes: np.ndarray, mouth: np.ndarray) -> np.ndarray:
        """See `Recogniser.embed`."""
        embeddings = []
        for frame, pair, centre in zip(frames, eyes, mouth, strict=True):
            transform = similarity_transform(np.concatenate([pair, centre[None]]), self._TEMPLATE)
            aligned = cv2.warpAffine(
                cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), transform, (self._SIDE, self._SIDE), flags=cv2.INTER_CUBIC
            )
            embeddings.append(self._network.feature(aligned).reshape(-1).copy())
        return unit_length(np.array(embeddings).reshape(len(embeddings), 128))


class SynthTalkRecogniser:
    """fedtalk's own shipped identity encoder, 128 numbers a face: for SynthTalk's people only; needs no further file."""

    name = "identity_synthtalk"

    def __init__(self) -> None:
        self._encoder = IdentityEncoder.shipped().eval()

    @torch.no_grad()
    def embed(self, frames: np.ndarray, eyes: np.ndarray, mouth: np.ndarray) -> np.ndarray:
        """See `Recogniser.embed`; the points are not needed, since frames are aligned."""
        pictures = to_unit(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2))
        return torch.cat([self._encoder(part) for part in pictures.split(128)]).numpy()


RECOGNISERS: dict[str, Callable[..., Recogniser]] = {
    SFaceRecogniser.name: SFaceRecogniser,
    DlibRecogniser.name: DlibRecogniser,
    "synthtalk": SynthTalkRecogniser,
}
"""Recognisers by name."""
