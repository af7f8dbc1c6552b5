"""dlib's face recogniser, which tells real people apart and needs no further file."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from fedtalk.data.faces import dlib_module, dlib_weights


class DlibRecogniser:
    """dlib's ResNet, 128 numbers a face, trained for Euclidean distance: people lie close together in cosine.

    The weights come with the package face_recognition_models. Compare its cosines with each other only.

    Source: D. E. King, "High Quality Face Recognition with Deep Metric Learning", dlib.net, 2017.
    """

    name = "dlib"
    _SIDE = 256  # frames are brought to this scale, at which landmarks are placed well

    def __init__(self) -> None:
        self._dlib = dlib_module()
        self._predictor = self._dlib.shape_predictor(str(dlib_weights("shape_predictor_5_face_landmarks.dat")))
        self._network = self._dlib.face_recognition_model_v1(
            str(dlib_weights("dlib_face_recognition_resnet_model_v1.dat"))
        )

    def embed(self, frames: np.ndarray, eyes: np.ndarray, mouth: np.ndarray) -> np.ndarray:
        """One embedding a frame, (F, 128) float32 of unit length.

        Args:
            frames: (F, H, W, 3) uint8 RGB.
            eyes: (F, 2, 2), centre of the eye on the left and on the right of the picture, (x, y) in pixels.
            mouth: (F, 2), midpoint of the corners of the mouth.
        """
        embeddings = []
        for frame, pair, centre in zip(frames, eyes, mouth, strict=True):
            factor = self._SIDE / frame.shape[0]
            large = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            shape = self._predictor(np.ascontiguousarray(large), self._box(pair * factor, centre * factor))
            chip = self._dlib.get_face_chip(large, shape, size=150, padding=0.25)
            embeddings.append(np.array(self._network.compute_face_descriptor(chip)))
        return unit_length(np.array(embeddings).reshape(len(embeddings), 128))

    def _box(self, eyes: np.ndarray, mouth: np.ndarray) -> Any:
        """About the square that dlib's detector draws, which is what the landmarks were trained on."""
        centre = (eyes.mean(0) + mouth) / 2
        half = 1.05 * max(float(np.linalg.norm(eyes[1] - eyes[0])), float(np.linalg.norm(mouth - eyes.mean(0))))
        return self._dlib.rectangle(*(round(float(side)) for side in (*(centre - half), *(centre + half))))


def unit_length(embeddings: np.ndarray) -> np.ndarray:
    """(F, D) float32, each row divided by its length."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.maximum(lengths, 1e-12)).astype(np.float32)
