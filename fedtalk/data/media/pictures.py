"""Pictures in and out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fedtalk.data.media.files import PathLike, opened, require_file
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
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
"""Brands of HEIF files (ISO/IEC 23008-12, 10.2)."""
RAW = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"}
"""Suffixes of cameras' raw pictures."""


def read_image(path: PathLike) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation; transparency is put on white, of an animation
    the first frame is taken.

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
            elif upright.mode[0] in "IF":  # more than 8 bits a pixel, which convert() would clip instead of scale
                upright = Image.fromarray(_eight_bits(np.asarray(upright)))
            return np.array(upright.convert("RGB"))
    except Exception as error:  # Pillow's readers raise a dozen kinds for a damaged file
        raise MediaError(_unreadable(path, error)) from error


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


def _eight_bits(picture: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of one channel: of whole numbers 65535 is white, of floating point 1, or 255 where there are larger values."""
    if not np.issubdtype(picture.dtype, np.floating):
        return (picture / 257).clip(0, 255).astype(np.uint8)
    values = np.nan_to_num(picture, nan=0.0, posinf=0.0, neginf=0.0)
    return (values * (255 if values.max() <= 1 else 1)).round().clip(0, 255).astype(np.uint8)


def _unreadable(path: Path, error: Exception) -> str:
    """What a file that Pillow can't read is, and what to do."""
    with path.open("rb") as stream:
        start = stream.read(512)
    jpeg = "save or export it as JPEG or PNG"
    if start[4:8] == b"ftyp" and start[8:12] in HEIF:
        return (
            f"picture {path} is HEIC, which can't be read here: {jpeg} (on an iPhone: Settings, Camera, Formats, "
            "Most Compatible)"
        )
    known = "a PDF document" if start.startswith(b"%PDF") else "a drawing (SVG)" if b"<svg" in start else None
    if path.suffix.lower() in RAW:
        known = "a camera's raw picture"
    if known is not None:
        return f"picture {path} is {known}, which can't be read here: {jpeg}"
    tracks = _tracks(path)
    if tracks:
        return f"picture {path} is a {tracks} file; expected a picture. Give a video with --video, speech with --audio"
    return (
        f"picture {path} can't be read ({error}); expected a whole JPEG, PNG, WebP, TIFF or BMP file. "
        "Export it again or choose another picture."
    )


def _tracks(path: Path) -> str:
    """``video`` or ``sound`` for a file that ffmpeg plays, else nothing; pictures have formats of their own there."""
    try:
        with opened(path) as container:
            if container.format.name.endswith(("_pipe", "image2")):
                return ""
            return "video" if container.streams.video else "sound"
    except MediaError:
        return ""
