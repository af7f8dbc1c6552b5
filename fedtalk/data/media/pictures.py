"""Pictures in and out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fedtalk.data.media.files import PathLike, require_file
from fedtalk.errors import MediaError, OutputError
from fedtalk.storage import atomic_path

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientations."""


def read_image(path: PathLike) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation; transparency is put on white.

    Raises:
        MediaError: the file is missing, empty, cut short or not a picture.
    """
    path = Path(path)
    require_file(path)
    try:
        with Image.open(path) as picture:
            picture.load()
            turn = TURNS.get(_orientation(picture))
            upright = picture.copy() if turn is None else picture.transpose(turn)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            elif upright.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip instead of scale
                upright = Image.fromarray((np.asarray(upright) / 257).clip(0, 255).astype(np.uint8))
            return np.array(upright.convert("RGB"))
    except Exception as error:  # Pillow's readers raise a dozen kinds for a damaged file
        raise MediaError(
            f"picture {path} can't be read ({error}); expected a whole JPEG, PNG, WebP or BMP file. "
            "Export it again or choose another picture."
        ) from error


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB in the format of the suffix (``.png``, ``.jpg``, ...), atomically.

    Raises:
        MediaError: ``image`` has another shape or type.
        OutputError: the suffix names no picture format, or the file can't be written.
    """
    check_frame(image)
    encoded = io.BytesIO()
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    try:
        Image.fromarray(image).save(encoded, kind)
    except (KeyError, ValueError, OSError) as error:
        raise OutputError(f"picture {path}: no format for suffix {Path(path).suffix!r}; use .png or .jpg") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def check_frame(frame: np.ndarray) -> None:
    """
    Raises:
        MediaError: not (H, W, 3) uint8.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise MediaError(f"picture: expected (H, W, 3) uint8 RGB, got {frame.shape} {frame.dtype}")


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where it can't be read: metadata never cost a picture."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # whatever a camera wrote there
        return 1
