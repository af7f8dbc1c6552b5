"""The 68 facial landmarks of a clip whose eyes are known, by dlib's regression trees."""

from __future__ import annotations

import cv2
import numpy as np

from fedtalk.data.faces import dlib_module, dlib_weights
from fedtalk.errors import ArtifactError


class LandmarkReader:
    """Places landmarks in the box that dlib's detector would draw around a face with these eyes.

    Source: V. Kazemi and J. Sullivan, "One Millisecond Face Alignment with an Ensemble of Regression Trees", CVPR 2014.
    """

    name = "dlib68"
    _SIDE = 256
    """Frames are brought to this scale, at which landmarks are placed well."""

    def __init__(self) -> None:
        self._dlib = dlib_module()
        self._predictor = self._dlib.shape_predictor(str(dlib_weights("shape_predictor_68_face_landmarks.dat")))

    def read(self, frames: np.ndarray, eyes: np.ndarray) -> np.ndarray:
        """
        Args:
            frames: (F, H, W, 3) uint8 RGB.
            eyes: (F, 2, 2) true eye centres in pixels.

        Returns:
            (F, 68, 2) float64 in pixels, in the order of iBUG 300-W.

        Raises:
            ArtifactError: eyes for another number of frames.
        """
        if eyes.shape != (len(frames), 2, 2):
            raise ArtifactError(f"landmarks: expected eyes ({len(frames)}, 2, 2), got {eyes.shape}")
        factor = self._SIDE / frames.shape[1]
        found = []
        for frame, pair in zip(frames, eyes * factor, strict=True):
            large = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            middle, unit = pair.mean(0), float(np.linalg.norm(pair[1] - pair[0]))
            box = (middle[0] - 1.15 * unit, middle[1] - 0.6 * unit, middle[0] + 1.15 * unit, middle[1] + 1.7 * unit)
            shape = self._predictor(np.ascontiguousarray(large), self._dlib.rectangle(*(round(float(s)) for s in box)))
            found.append([(point.x, point.y) for point in shape.parts()])
        return np.array(found, np.float64).reshape(len(frames), 68, 2) / factor
