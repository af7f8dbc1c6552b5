"""Telling people apart while a video is prepared: dlib's descriptor of a face, which needs no download."""

from __future__ import annotations

import numpy as np

from fedtalk.data.faces import Face, dlib_module, dlib_weights


class Likeness:
    """Embeddings of faces; two of one person lie within 0.6 of each other.

    Source: D. E. King, "High Quality Face Recognition with Deep Metric Learning", dlib.net, 2017.
    """

    def __init__(self) -> None:
        self._dlib = dlib_module()
        self._predictor = self._dlib.shape_predictor(str(dlib_weights("shape_predictor_5_face_landmarks.dat")))
        self._network = self._dlib.face_recognition_model_v1(
            str(dlib_weights("dlib_face_recognition_resnet_model_v1.dat"))
        )

    def embed(self, frame: np.ndarray, face: Face) -> np.ndarray:
        """(128,) float32 of a face in ``frame``, (H, W, 3) uint8 RGB."""
        rectangle = self._dlib.rectangle(*(round(float(side)) for side in face.box))
        frame = np.ascontiguousarray(frame)  # dlib reads strided arrays as if they were not, without a word
        chip = self._dlib.get_face_chip(frame, self._predictor(frame, rectangle), size=150, padding=0.25)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(chip)), np.float32)
