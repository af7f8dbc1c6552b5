"""Pictures in and out."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from fedtalk.data.media.files import PathLike, opened, require_file
from fedtalk.data.media.heif import is_heif, open_heif
from fedtalk.errors import FedTalkError, MediaError, OutputError
from fedtalk.storage import atomic_path

log = logging.getLogger("fedtalk")

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
SPACES = {"RGB": ("RGB", None), "GRAY": ("L", {"1", "L", "LA"}), "CMYK": ("CMYK", {"CMYK"})}
"""By an ICC profile's space: mode that it is for, and modes of pictures that it may belong to (all for None)."""
RAW = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"}
"""Suffixes of cameras' raw pictures."""


def read_image(path: PathLike) -> np.ndarray:
    """A picture as (H, W, 3) uint8 in sRGB, turned upright by its EXIF orientation; transparency is put on white, of an animation
    the first frame is taken.

    Raises:
        MediaError: the file is missing, empty, cut short or not a picture.
        ArtifactError: it is HEIC, and pillow-heif is not installed.
    """
    path = Path(path)
    require_file(path)
    try:
        with open_heif(path) if is_heif(path) else Image.open(path) as picture:
            picture.load()
            turn = TURNS.get(_orientation(picture))
            upright = picture.copy() if turn is None else picture.transpose(turn)
            return np.array(_on_white(_in_srgb(upright, picture.info.get("icc_profile"), path)))
    except FedTalkError:
        raise
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


def _in_srgb(picture: Image.Image, profile: bytes | None, path: Path) -> Image.Image:
    """8 bits a channel, brought from the colours of an ICC profile (telephones: Display P3) to sRGB's."""
    if picture.mode[0] in "IF":  # more than 8 bits a pixel, which convert() would clip instead of scale
        picture = Image.fromarray(_eight_bits(np.asarray(picture)))
    alpha, own = None, picture.mode
    if own in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
    if profile:
        try:
            known = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode, fitting = SPACES[known.profile.xcolor_space.strip()]
            if fitting is None or own in fitting:
                srgb, how = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
                picture = ImageCms.profileToProfile(picture.convert(mode), known, srgb, how, "RGB") or picture
        except Exception as error:  # whatever a program wrote there
            log.warning("picture %s: its colour profile can't be used (%r); taken for sRGB", path, error)
    picture = picture.convert("RGB")
    if alpha is not None:
        picture.putalpha(alpha)
    return picture


def _on_white(picture: Image.Image) -> Image.Image:
    """RGB; transparency is put on white."""
    if picture.mode != "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


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
    known = "a PDF document" if start.startswith(b"%PDF") else "a drawing (SVG)" if b"<svg" in start else None
    if path.suffix.lower() in RAW:
        known = "a camera's raw picture"
    if known is not None:
        return f"picture {path} is {known}, which can't be read here: {jpeg}"
    tracks = "" if is_heif(path) else _tracks(path)  # ffmpeg takes stills of these for video
    if tracks:
        return f"picture {path} is a {tracks} file; expected a picture. Give a video with --video, speech with --audio"
    why = " ".join(str(error).split())
    return (
        f"picture {path} can't be read ({why}); expected a whole JPEG, PNG, HEIC, WebP, TIFF or BMP file. "
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
