"""HEIF pictures (``.heic``, an iPhone's photographs), by the optional package pillow-heif.

It is no core dependency, since its wheels hold x265, an encoder under the GPL.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fedtalk.data.media.colour import HLG, PQ, screen_colours
from fedtalk.data.media.video import read_video
from fedtalk.errors import ArtifactError, MediaError

BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
"""Of HEIF files (ISO/IEC 23008-12, 10.2)."""
AV1 = frozenset({b"avif", b"avis"})
"""Brands of those that hold AV1, which Pillow reads."""
ROWS = 256
"""Rows of a picture that are brought to an ordinary screen's colours at a time."""


def is_heif(path: Path) -> bool:
    """Whether a file is HEIF by its first box."""
    with path.open("rb") as stream:
        length, kind, brand = int.from_bytes(stream.read(4), "big"), stream.read(4), stream.read(4)
        others = stream.read(max(0, min(length, 512) - 12))
    if kind != b"ftyp" or brand not in BRANDS:
        return False
    return not AV1 & {others[at : at + 4] for at in range(4, len(others), 4)}


def open_heif(path: Path) -> Image.Image:
    """The primary picture, or the first of a sequence; turned upright, as these files say by boxes of their own and not by Exif.

    Returns:
        8 bits a channel; of PQ and HLG pictures those of an ordinary screen.

    Raises:
        ArtifactError: pillow-heif is not installed.
        MediaError: the file is cut short.
        Exception: one of the dozen kinds that its readers raise for a damaged file.
    """
    found = _boxes(path)
    if b"meta" not in found and b"moov" in found:  # a sequence without stills, which ffmpeg reads as it does video
        return Image.fromarray(next(iter(read_video(path))))
    try:
        import pillow_heif
    except ImportError as error:
        raise ArtifactError(
            f'picture {path} is HEIC, which needs pillow-heif ({error}); run `pip install "fedtalk[heic]"`, or export it as '
            "JPEG or PNG (on an iPhone: Settings, Camera, Formats, Most Compatible)"
        ) from error
    stored = pillow_heif.open_heif(path)
    transfer = stored.info.get("nclx_profile", {}).get("transfer_characteristics")
    if transfer in (PQ, HLG) and stored.mode.startswith("RGB"):
        return _of_a_screen(np.asarray(pillow_heif.open_heif(path, convert_hdr_to_8bit=False))[..., :3], transfer)
    return stored.to_pillow()


def _of_a_screen(signal: np.ndarray, transfer: int) -> Image.Image:
    """Of a BT.2020 signal, (H, W, 3) of uint8 or uint16."""
    made = np.empty(signal.shape, np.uint8)
    for row in range(0, len(signal), ROWS):
        part = screen_colours(signal[row : row + ROWS] / np.iinfo(signal.dtype).max, transfer)
        made[row : row + ROWS] = (part * 255).round().clip(0, 255)
    return Image.fromarray(made)


def _boxes(path: Path) -> set[bytes]:
    """Kinds of a file's outermost boxes.

    Raises:
        MediaError: one ends behind the end of the file, of which libheif would show what there is, the rest black.
    """
    size, at = path.stat().st_size, 0
    found: set[bytes] = set()
    with path.open("rb") as stream:
        while len(head := stream.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(stream.read(8), "big")
            at += length
            if at > size:
                raise MediaError(
                    f"picture {path} can't be read: cut short, {size} of at least {at} bytes are there; copy it again"
                )
            found.add(head[4:])
            if length < 8:  # to the end of the file, or damaged
                break
            stream.seek(at)
    return found
