"""HEIC pictures, as telephones make them, and the colours that they say they are in."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from heads import DotFinder, draw, record, sine, still
from PIL import Image

from fedtalk.data.layouts import face_picture
from fedtalk.data.media import read_image
from fedtalk.data.prepare import prepare
from fedtalk.errors import ArtifactError, MediaError

heif = pytest.importorskip("pillow_heif", reason="pip install 'fedtalk[heic]'")

CORNERS = np.zeros((96, 160, 3), np.uint8)
CORNERS[:48, :80], CORNERS[:48, 80:], CORNERS[48:, :80] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
SETTINGS: dict[str, Any] = {"size": 48, "clip_seconds": 0.2, "progress": False}
TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
"""Linear Display P3 to linear sRGB."""


def write_heic(path: Path, picture: np.ndarray, **how: Any) -> Path:
    heif.from_pillow(Image.fromarray(picture)).save(path, quality=-1, chroma=444, **how)
    return path


def of_p3(colours: np.ndarray) -> np.ndarray:
    """sRGB of Display P3 colours, both 0 to 255; the two share a curve."""
    signal = colours / 255
    linear = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4) @ TO_SRGB.T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def p3_profile() -> bytes:
    """An ICC profile of Display P3 (ICC.1:2022): colorants under D50, and sRGB's curve."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"para\0\0\0\0\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    text = "P3".encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">2I4s2I", 1, 12, b"enUS", len(text), 28) + text
    colorants = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189),
                 b"bXYZ": (0.15710, 0.06657, 0.78407), b"wtpt": (0.9642, 1.0, 0.8249)}  # fmt: skip
    tags = {name: b"XYZ \0\0\0\0" + fixed(*values) for name, values in colorants.items()}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"desc": words, b"cprt": words}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4s2I", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    whole = start + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s28x", whole, 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head += fixed(0.9642, 1.0, 0.8249)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright_once(tmp_path: Path, orientation: int) -> None:
    """These files hold the turn twice, as a box and in Exif; of a PNG, Exif alone is read."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    got = read_image(write_heic(tmp_path / "a.heic", CORNERS, exif=tags.tobytes()))
    Image.fromarray(CORNERS).save(tmp_path / "a.png", exif=tags)
    wanted = read_image(tmp_path / "a.png")
    assert got.shape == wanted.shape and np.abs(got.astype(int) - wanted).max() <= 3


@pytest.mark.parametrize("suffix", ["heic", "png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("alpha", [False, True])
def test_display_p3_is_brought_to_srgb(tmp_path: Path, suffix: str, alpha: bool) -> None:
    if alpha and suffix == "jpg":
        pytest.skip("JPEG has no transparency")
    colours = np.array([[200, 120, 100], [90, 60, 50], [128, 128, 128], [60, 110, 70], [250, 250, 250]])
    picture = np.broadcast_to(colours.repeat(32, axis=0)[None], (64, 160, 3)).astype(np.uint8)
    if alpha:
        picture = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
    path = tmp_path / f"a.{suffix}"
    if suffix == "heic":
        write_heic(path, picture, icc_profile=p3_profile(), icc_profile_type="prof")
    else:
        Image.fromarray(picture).save(path, icc_profile=p3_profile(), quality=100)
    np.testing.assert_allclose(read_image(path)[32, 16::32], of_p3(colours), atol=4)
    assert np.abs(of_p3(colours) - colours).max() > 8, "else nothing is seen"


@pytest.mark.parametrize("profile", [b"no profile", p3_profile()[:200]])
def test_a_damaged_profile_costs_no_picture(tmp_path: Path, profile: bytes, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), CORNERS)
    assert "a.png: its colour profile can't be used" in caplog.text


@pytest.mark.parametrize("mode", ["RGB;16", "L;16"])
def test_ten_bits_are_scaled_to_eight(tmp_path: Path, mode: str) -> None:
    channels = 3 if mode == "RGB;16" else 1
    ramp = np.linspace(0, 65535, 64 * 96).astype("<u2").reshape(64, 96, 1).repeat(channels, axis=2)
    heif.from_bytes(mode, (96, 64), ramp.tobytes()).save(tmp_path / "a.heic", quality=-1, chroma=444)
    assert np.abs(read_image(tmp_path / "a.heic") - ramp / 257).max() < 3


def test_hdr_is_brought_to_an_ordinary_screens_light(tmp_path: Path) -> None:
    """Grey at 18 % of diffuse white, by the PQ formula of BT.2100, is the grey that video of BT.709 has."""
    light = np.array([0.18 * 203, 203]) / 10_000
    power = light**0.1593017578125
    grey, white = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    picture = np.full((64, 96, 3), round(grey * 65535), "<u2")
    picture[:, 48:] = round(white * 65535)
    heif.from_bytes("RGB;16", (96, 64), picture.tobytes()).save(
        tmp_path / "a.hif", quality=-1, chroma=444, color_primaries=9, transfer_characteristics=16,
        transfer_characteristic=16, matrix_coefficients=9,
    )  # fmt: skip
    got = read_image(tmp_path / "a.hif").astype(int)
    np.testing.assert_allclose(got[32, 24], 255 * (1.099 * 0.18**0.45 - 0.099), atol=4)
    assert 225 < got[32, 72, 0] <= 255


def test_transparency_lies_on_white_and_the_primary_picture_is_read(tmp_path: Path) -> None:
    clear = np.dstack([CORNERS, np.zeros(CORNERS.shape[:2], np.uint8)])
    assert (read_image(write_heic(tmp_path / "clear.heic", clear)) == 255).all()
    both = heif.from_pillow(Image.new("RGB", (64, 64), "black"))
    both.add_from_pillow(Image.fromarray(CORNERS))
    both.save(tmp_path / "burst.heic", primary_index=1, quality=-1, chroma=444)
    assert np.abs(read_image(tmp_path / "burst.heic").astype(int) - CORNERS).max() <= 3
    large = np.kron(CORNERS, np.ones((8, 8, 1), np.uint8))
    tiled = read_image(write_heic(tmp_path / "tiles.heic", large, tile_size=512))
    assert np.abs(tiled.astype(int) - large).max() <= 3


def test_of_a_sequence_the_first_picture_is_taken(tmp_path: Path) -> None:
    """A track alone, no stills: a film of pictures in a file of that brand."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv444p"
        for number, picture in enumerate([CORNERS, CORNERS[::-1]]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    film = (tmp_path / "a.mp4").read_bytes().replace(b"ftypisom", b"ftypmsf1", 1)
    (tmp_path / "a.heics").write_bytes(film.replace(b"hdlr" + bytes(8) + b"vide", b"hdlr" + bytes(8) + b"pict"))
    got = read_image(tmp_path / "a.heics")
    middles = (slice(24, None, 48), slice(40, None, 80))
    np.testing.assert_allclose(got[middles].astype(int), CORNERS[middles], atol=12)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("tiles", [{}, {"tile_size": 64}])
def test_a_file_that_is_cut_short_is_named_in_one_line(tmp_path: Path, share: float, tiles: dict) -> None:
    data = write_heic(tmp_path / "whole.heic", CORNERS, **tiles).read_bytes()
    (tmp_path / "cut.heic").write_bytes(data[: max(16, round(share * len(data)))])
    with pytest.raises(MediaError, match=r"cut\.heic can't be read.*(Export|copy) it again") as caught:
        read_image(tmp_path / "cut.heic")
    assert "\n" not in str(caught.value)


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_heic(tmp_path / "IMG_0001.HEIC", CORNERS)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "renamed.jpg").write_bytes(path.read_bytes())
    for name in ("IMG_0001.HEIC", "renamed.jpg"):
        with pytest.raises(ArtifactError, match=rf'{name} is HEIC.*pip install "fedtalk\[heic\]".*Most Compatible'):
            read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["face.heic", "face.HEIC", "Face.JPG"])
def test_a_telephones_picture_says_who_is_meant(tmp_path: Path, name: str) -> None:
    video = record(tmp_path / "raw" / "anna" / "sub" / "a.mp4", still(10), sine(10))
    picture = draw((120, 80, 36, 0))
    path = tmp_path / "raw" / "anna" / name
    if name.lower().endswith("jpg"):
        Image.fromarray(picture).save(path)
    else:
        write_heic(path, picture)
    assert face_picture(video, "anna") == path
    assert face_picture(video, "nobody's folder") is None
    wanted = np.abs(read_image(path).astype(int) - picture).max(axis=2)
    assert np.median(wanted) <= 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedtalk.data.prepare.one_video.Likeness", _AnyFace)
        report = prepare(tmp_path / "raw", tmp_path / "clients", finder=DotFinder(), **SETTINGS)
    assert report.made == 2 and not report.rejects


class _AnyFace:
    def embed(self, *_: object) -> np.ndarray:
        return np.ones(128) / 128**0.5


def test_prepare_without_the_package_ends_and_is_not_taken_for_done(tmp_path: Path) -> None:
    record(tmp_path / "raw" / "anna" / "a.mp4", still(12), sine(12))
    write_heic(tmp_path / "raw" / "anna" / "face.heic", np.zeros((64, 64, 3), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(ArtifactError, match="pip install"):
            prepare(tmp_path / "raw", tmp_path / "clients", finder=DotFinder(), **SETTINGS)
    with pytest.raises(MediaError, match=r"no face found in face\.heic"):
        prepare(tmp_path / "raw", tmp_path / "clients", finder=DotFinder(), **SETTINGS)
