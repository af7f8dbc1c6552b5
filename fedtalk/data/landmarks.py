"""Landmarks of a face whose eyes are known: dlib's 68 points on an enlarged copy."""

from __future__ import annotations

import cv2
import numpy as np

from fedtalk.data.clip import Reference
from fedtalk.data.faces import dlib_module, landmark_predictor

SMALLEST = 108.0
"""Pixels between the eyes to which smaller pictures are enlarged: the landmarks are steadier there."""


def landmarks(reference: Reference) -> np.ndarray:
    """(68, 2) float64, (x, y) in pixels, of a picture that shows one face.

    Raises:
        ArtifactError: dlib or its landmarks' weights are absent.
    """
    eyes = np.asarray(reference.eyes, np.float64)
    unit = max(float(np.hypot(*(eyes[1] - eyes[0]))), 1e-3)
    scale = max(1.0, SMALLEST / unit)
    large = cv2.resize(reference.frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    centre, reach = (eyes.mean(0) + 0.5) * scale - 0.5, unit * scale
    left, top = centre - np.array([1.05, 0.5]) * reach
    box = dlib_module().rectangle(*(round(side) for side in (left, top, left + 2.1 * reach, top + 2.1 * reach)))
    shape = landmark_predictor()(np.ascontiguousarray(large), box)
    return (np.array([(part.x, part.y) for part in shape.parts()], np.float64) + 0.5) / scale - 0.5
