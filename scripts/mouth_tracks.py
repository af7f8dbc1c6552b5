"""Reads mouths in clips or videos with MediaPipe's face mesh: an independent measure, in an environment of its own.

    python3 -m venv MESH && MESH/bin/pip install mediapipe==0.10.21 "numpy<2" av
    MESH/bin/python scripts/mouth_tracks.py OUT FILE...      # FILE: .npz of `fedtalk prepare`, or a video

Writes OUT/<name of FILE's folder>/<name of FILE>.npz: (F,) opening (gap of the inner lips), width (between the corners of
the mouth) and jaw (chin below the eyes), each over the distance between the eyes, lids (gap over width, mean of both eyes), and
face (whether a face was seen).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

INNER_LIPS = ((82, 87), (13, 14), (312, 317))
CORNERS, CHIN = (61, 291), 152
EYES = ((33, 133), (362, 263))
LIDS = ((159, 145), (386, 374))
SIDE = 512
"""Pixels to which small frames are enlarged: the mesh is steadier there."""


def frames_of(path: Path) -> np.ndarray:
    """(F, H, W, 3) uint8."""
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return stored["frames"]
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read(frames: np.ndarray) -> dict[str, np.ndarray]:
    import cv2
    import mediapipe

    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=False, refine_landmarks=True, min_detection_confidence=0.3, min_tracking_confidence=0.3
    )
    rows = {name: [] for name in ("opening", "width", "jaw", "lids", "face", "mouth")}
    last = None
    for frame in frames:
        scale = max(1.0, SIDE / max(frame.shape[:2]))
        large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        found = mesh.process(large).multi_face_landmarks
        rows["face"].append(bool(found))
        if found:
            height, width = large.shape[:2]
            last = np.array([(p.x * width, p.y * height) for p in found[0].landmark])
        points = last if last is not None else np.full((478, 2), np.nan)
        eyes = [points[list(pair)].mean(0) for pair in EYES]
        across = eyes[1] - eyes[0]
        unit = float(np.linalg.norm(across))
        down = np.array([-across[1], across[0]]) / unit
        gaps = [(points[low] - points[high]) @ down for high, low in INNER_LIPS]
        rows["opening"].append(max(0.0, float(np.mean(gaps)) / unit))
        rows["width"].append(float(np.linalg.norm(points[CORNERS[1]] - points[CORNERS[0]])) / unit)
        rows["jaw"].append(float((points[CHIN] - (eyes[0] + eyes[1]) / 2) @ down) / unit)
        rows["lids"].append(
            float(
                np.mean(
                    [
                        np.linalg.norm(points[low] - points[high]) / np.linalg.norm(points[outer] - points[inner])
                        for (high, low), (outer, inner) in zip(LIDS, EYES, strict=True)
                    ]
                )
            )
        )
        rows["mouth"].append(points[list(CORNERS)].mean(0) / scale)
    mesh.close()
    return {name: np.array(values) for name, values in rows.items()}


def main() -> None:
    out, *paths = sys.argv[1:]
    for path in map(Path, paths):
        target = Path(out) / path.parent.name / f"{path.stem}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, **read(frames_of(path)))


if __name__ == "__main__":
    main()
