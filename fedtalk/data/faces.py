"""Finding faces in pictures: the box, the eyes, the mouth and how far it is open.

`face_finder("dlib")` needs nothing but the package registry; "yunet" and "face-alignment" need a file that the user
fetches. Further finders are any object with `FaceFinder.find`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import numpy as np

from fedtalk.checks import check_choice
from fedtalk.errors import ArtifactError, ConfigurationError

Finder = Literal["dlib", "yunet", "face-alignment"]


@dataclass(frozen=True)
class Face:
    """One face in a picture; points are (x, y) in pixels, pixel centres at whole numbers."""

    box: np.ndarray
    """(4,) float32: x0, y0, x1, y1."""
    eyes: np.ndarray
    """(2, 2) float32: centre of the eye on the left and on the right of the picture."""
    mouth: np.ndarray
    """(2,) float32: midpoint of the corners of the mouth, which stays put while the jaw drops."""
    confidence: float
    """Higher is surer; the scale is the finder's own."""
    mouth_corners: np.ndarray | None = None
    """(2, 2) float32: corner on the left and on the right of the picture."""
    opening: float | None = None
    """Gap between the inner lips over the distance between the eyes; about 0 to 0.35 in speech."""

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float(max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1]))


class FaceFinder(Protocol):
    """Finds all faces in a picture."""

    name: str

    def find(self, frame: np.ndarray) -> list[Face]:
        """Faces in ``frame``, (H, W, 3) uint8 RGB, in any order; empty where there is none."""
        ...


@runtime_checkable
class FacePlacer(Protocol):
    """A finder that also places landmarks in a box known already, much cheaper than finding."""

    def place(self, frame: np.ndarray, box: np.ndarray) -> Face:
        """The face in ``box``, (4,) as in `Face`, of ``frame``, (H, W, 3) uint8 RGB."""
        ...


def face_finder(name: Finder, **options: Any) -> FaceFinder:
    """A face finder by name: "dlib", "yunet" or "face-alignment"; ``options`` are its constructor's.

    Raises:
        ConfigurationError: unknown name or option.
        ArtifactError: a package or model file that it needs is absent; the message says where to get it.
    """
    check_choice("face finder", name, Finder)
    try:
        return FINDERS[name](**options)
    except TypeError as error:
        raise ConfigurationError(f"options of face finder {name!r}: {error}") from error


def face_from_landmarks(points: np.ndarray, box: np.ndarray, confidence: float) -> Face:
    """A `Face` from (68, 2) landmarks in the order of the iBUG 300-W annotation (0-based)."""
    points = np.asarray(points, np.float32)
    eyes = np.stack([points[36:42].mean(0), points[42:48].mean(0)])
    corners = points[[48, 54]]
    gap = np.linalg.norm(points[[61, 62, 63]] - points[[67, 66, 65]], axis=1).mean()
    between_eyes = max(float(np.linalg.norm(eyes[1] - eyes[0])), 1e-6)
    return Face(
        np.asarray(box, np.float32), eyes, corners.mean(0), confidence, corners, opening=float(gap) / between_eyes
    )


def dlib_weights(file_name: str) -> Path:
    """A weights file inside the package face_recognition_models, found without importing it.

    Importing it fails beside recent setuptools, which no longer bring the ``pkg_resources`` that it asks for.

    Raises:
        ArtifactError: the package or the file is absent.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "models" / file_name
        if path.is_file():
            return path
    raise ArtifactError(f"{file_name} is not installed; run `pip install dlib-bin face_recognition_models`")


def dlib_module() -> Any:
    """The module ``dlib``, or an ArtifactError that says how to install it."""
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise ArtifactError(f"dlib can't be imported ({error}); run `pip install dlib-bin`") from error


@functools.lru_cache(maxsize=1)
def landmark_predictor() -> Any:
    """dlib's predictor of 68 landmarks; 100 MB, which are read once.

    Raises:
        ArtifactError: dlib or the weights are absent.
    """
    return dlib_module().shape_predictor(str(dlib_weights("shape_predictor_68_face_landmarks.dat")))


def model_file(path: str | os.PathLike[str] | None, variable: str, what: str, file_name: str) -> Path:
    """The model file that the user names by option or environment variable.

    Raises:
        ArtifactError: neither names one, or the file is absent.
    """
    chosen = path or os.environ.get(variable)
    if not chosen:
        raise ArtifactError(
            f"{what} needs its model file {file_name} (OpenCV model zoo on the Hugging Face hub). "
            f"Download it and give its path as the option `path` or in the environment variable {variable}."
        )
    if not Path(chosen).is_file():
        raise ArtifactError(f"{what}: expected the model file {file_name}, but {chosen} does not exist")
    return Path(chosen)


class DlibFinder:
    """dlib's HOG detector of frontal faces with its 68 landmarks; everything comes with the Python packages.

    Args:
        long_side: the picture is scaled so that its longer side has so many pixels before faces are looked for. The
            detector sees faces of 80 pixels and more, and its time grows with the area. Where nothing is found in a
            picture that is larger still, a second look is taken at twice the size.
        threshold: confidence from which a face counts; below 0 finds more faces and more that are none.

    Source: D. E. King, "Dlib-ml: A Machine Learning Toolkit", JMLR 10, 2009; landmarks: V. Kazemi and J. Sullivan,
    "One Millisecond Face Alignment with an Ensemble of Regression Trees", CVPR 2014.
    """

    name = "dlib"

    def __init__(self, *, long_side: int = 720, threshold: float = 0.0) -> None:
        self._dlib = dlib_module()
        self._detector = self._dlib.get_frontal_face_detector()
        self._predictor = landmark_predictor()
        self._long_side = long_side
        self._threshold = threshold

    def find(self, frame: np.ndarray) -> list[Face]:
        """See `FaceFinder.find`."""
        faces = self._find_at(frame, self._long_side)
        if not faces and max(frame.shape[:2]) > self._long_side:
            faces = self._find_at(frame, 2 * self._long_side)
        return faces

    def place(self, frame: np.ndarray, box: np.ndarray) -> Face:
        """See `FacePlacer.place`."""
        return self._landmarks(frame, np.asarray(box, np.float32), 0.0)

    def _find_at(self, frame: np.ndarray, long_side: int) -> list[Face]:
        factor = long_side / max(frame.shape[:2])
        size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
        scaled = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        boxes, scores, _ = self._detector.run(np.ascontiguousarray(scaled), 0, self._threshold)
        return [
            self._landmarks(frame, np.array([b.left(), b.top(), b.right(), b.bottom()], np.float32) / factor, score)
            for b, score in zip(boxes, scores, strict=True)
        ]

    def _landmarks(self, frame: np.ndarray, box: np.ndarray, confidence: float) -> Face:
        rectangle = self._dlib.rectangle(*(round(float(side)) for side in box))
        # dlib reads strided arrays as if they were not, without a word
        shape = self._predictor(np.ascontiguousarray(frame), rectangle)
        return face_from_landmarks(np.array([(p.x, p.y) for p in shape.parts()]), box, float(confidence))


class YuNetFinder:
    """OpenCV's YuNet detector (eyes, nose, corners of the mouth; no opening of the lips).

    Args:
        path: ``face_detection_yunet_2023mar.onnx``; without it the environment variable FEDTALK_YUNET.
        threshold: confidence in [0, 1] from which a face counts.
        long_side: pictures whose longer side exceeds this are scaled down to it.

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023.
    """

    name = "yunet"

    def __init__(
        self, *, path: str | os.PathLike[str] | None = None, threshold: float = 0.7, long_side: int = 720
    ) -> None:
        model = model_file(path, "FEDTALK_YUNET", "face finder 'yunet'", "face_detection_yunet_2023mar.onnx")
        try:
            self._detector = cv2.FaceDetectorYN.create(str(model), "", (320, 320), threshold)
        except cv2.error as error:
            raise ArtifactError(f"face finder 'yunet': {model} is not a YuNet model ({error.err})") from error
        self._long_side = long_side

    def find(self, frame: np.ndarray) -> list[Face]:
        """See `FaceFinder.find`."""
        factor = min(1.0, self._long_side / max(frame.shape[:2]))
        size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
        scaled = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize(size)
        _, rows = self._detector.detect(scaled)
        return [self._face(row, factor) for row in ([] if rows is None else rows)]

    @staticmethod
    def _face(row: np.ndarray, factor: float) -> Face:
        x, y, width, height = row[:4] / factor
        points = (row[4:14] / factor).reshape(5, 2)  # eye, eye, nose, corner, corner, from the left of the picture
        box = np.array([x, y, x + width, y + height], np.float32)
        return Face(box, points[:2], points[3:].mean(0), float(row[14]), points[3:])


class FaceAlignmentFinder:
    """The 68 landmarks of face-alignment's FAN network in the boxes of another finder (extra ``fedtalk[landmarks]``).

    Slower and more exact than dlib's on turned heads.

    Args:
        finder: name of the finder that gives the boxes.
        device: torch device.

    Source: A. Bulat and G. Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?", ICCV 2017.
    """

    name = "face-alignment"
    _CHECKPOINT = "2DFAN4-11f355bf06.pth.tar"

    def __init__(self, *, finder: Finder = "dlib", device: str = "cpu") -> None:
        try:
            package = importlib.import_module("face_alignment")
            hub = importlib.import_module("torch.hub")
        except ImportError as error:
            raise ArtifactError(
                f"face finder 'face-alignment' can't be imported ({error}); run `pip install 'fedtalk[landmarks]'`"
            ) from error
        checkpoint = Path(hub.get_dir()) / "checkpoints" / self._CHECKPOINT
        if not checkpoint.is_file():
            raise ArtifactError(
                f"face finder 'face-alignment' needs its weights at {checkpoint}. Download "
                f"https://www.adrianbulat.com/downloads/python-fan/{self._CHECKPOINT} to there, or use finder 'dlib'."
            )
        # the "folder" detector loads nothing: boxes are always given
        self._network = package.FaceAlignment(
            package.LandmarksType.TWO_D, device=device, compile=False, face_detector="folder"
        )
        self._finder = face_finder(finder)

    def find(self, frame: np.ndarray) -> list[Face]:
        """See `FaceFinder.find`."""
        return [self._landmarks(frame, face.box, face.confidence) for face in self._finder.find(frame)]

    def place(self, frame: np.ndarray, box: np.ndarray) -> Face:
        """See `FacePlacer.place`."""
        return self._landmarks(frame, box, 0.0)

    def _landmarks(self, frame: np.ndarray, box: np.ndarray, confidence: float) -> Face:
        (points,) = self._network.get_landmarks_from_image(frame, detected_faces=[np.asarray(box).tolist()])
        return face_from_landmarks(points, box, confidence)


FINDERS: dict[str, Callable[..., FaceFinder]] = {
    DlibFinder.name: DlibFinder,
    YuNetFinder.name: YuNetFinder,
    FaceAlignmentFinder.name: FaceAlignmentFinder,
}
"""Finders by name."""
