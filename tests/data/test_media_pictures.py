"""Pictures as players show them: upright, in the right colours; read from files and written."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import make_video, make_wav, sine
from PIL import Image

from fedtalk.data.media import (
    read_image,
    read_video,
    write_image,
)
from fedtalk.errors import MediaError


def test_square_pixels(tmp_path: Path) -> None:
    path = make_video(tmp_path / "wide.mp4", aspect=Fraction(2), count=3)
    assert next(iter(read_video(path))).shape == (64, 256, 3)


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV can't write a rotation")
def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    upright = next(iter(read_video(make_video(tmp_path / "a.mp4", count=1))))
    for degrees in (90, 180, -90):
        turned = next(iter(read_video(make_video(tmp_path / f"{degrees}.mp4", count=1, rotation=degrees))))
        np.testing.assert_array_equal(turned, np.rot90(upright, degrees // 90))


def test_pictures_round_trip_upright_and_on_white(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)
    tags = Image.Exif()
    tags[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=tags)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(picture, -1))
    Image.fromarray(np.dstack([picture, np.zeros((20, 30), np.uint8)])).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()
    Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png") == 100).all()


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    write_image(whole, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    for name in ("cut.png", "text.png", "empty.png", "missing.png"):
        with pytest.raises(MediaError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("scan.pdf", b"%PDF-1.7", "is a PDF document"),
        ("drawing.svg", b"<?xml version='1.0'?><svg/>", r"is a drawing \(SVG\)"),
        ("IMG_1.CR3", b"\0\0\0\x18ftypcrx ", "is a camera's raw picture"),
    ],
)
def test_pictures_of_other_formats_are_named(tmp_path: Path, name: str, start: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(start + bytes(64))
    with pytest.raises(MediaError, match=said):
        read_image(tmp_path / name)


def test_a_video_and_a_sound_given_as_a_picture_are_told_apart(tmp_path: Path) -> None:
    make_video(tmp_path / "film.mp4", count=3)
    make_wav(tmp_path / "voice.png", sine(0.1)[None], 16_000)
    for name, kind in (("film.mp4", "video"), ("voice.png", "sound")):
        with pytest.raises(MediaError, match=f"{name} is a {kind} file; expected a picture"):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("white", "kind"), [(1.0, np.float32), (255.0, np.float32), (65535, np.uint16), (65535, np.int32)]
)
def test_more_than_eight_bits_a_pixel_are_scaled(tmp_path: Path, white: float, kind: type) -> None:
    ramp = np.linspace(0, white, 256).reshape(16, 16).astype(kind)
    Image.fromarray(ramp).save(tmp_path / "deep.tiff")
    assert np.abs(read_image(tmp_path / "deep.tiff")[..., 0].reshape(-1) - np.arange(256.0)).max() <= 1


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ((200, 40, 40), (40, 40, 200))]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=100)
    got = read_image(tmp_path / f"a.{suffix}")
    assert got.shape == (24, 32, 3) and np.abs(got.mean((0, 1)) - (200, 40, 40)).max() < 8


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_matrix"), reason="this PyAV can't write a display matrix")
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
        ((1, 0, 0, -1), lambda picture: picture[::-1]),
        ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda picture: picture[::-1, ::-1].swapaxes(0, 1)),
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    ],
)
def test_mirrored_pictures_are_shown_as_players_do(tmp_path: Path, matrix: tuple, shown: Callable) -> None:
    """x' = a x + c y and y' = b x + d y, as the container defines its matrix ((a, b), (c, d))."""
    path = tmp_path / "a.mp4"
    corners = np.zeros((64, 128, 3), np.uint8)
    corners[:32, :64], corners[:32, 64:], corners[32:, :64] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        a, b, c, d = (value * 65536 for value in matrix)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        frame = av.VideoFrame.from_ndarray(corners, format="rgb24")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (picture,) = read_video(path)
    wanted = shown(corners)
    assert picture.shape == wanted.shape
    quarters = (slice(8, None, picture.shape[0] // 2), slice(8, None, picture.shape[1] // 2))
    np.testing.assert_allclose(picture[quarters].astype(int), wanted[quarters], atol=12)


def hdr_video(path: Path, light: np.ndarray, transfer: int) -> Path:
    """Linear BT.2020 light (H, W, 3) in cd/m2, coded by PQ or HLG in 10 bits, by the formulae of BT.2100."""
    if transfer == 16:
        power = (light / 10_000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        scene = light / 1000 * np.maximum(light @ [0.2627, 0.6780, 0.0593] / 1000, 1e-9)[..., None] ** (1 / 1.2 - 1)
        log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)
    luma = signal @ [0.2627, 0.6780, 0.0593]
    blue, red = (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746
    planes = np.stack([(219 * luma + 16) * 4, (224 * blue + 128) * 4, (224 * red + 128) * 4], axis=-1)
    frame = av.VideoFrame.from_ndarray((planes.round() * 64).astype(np.uint16), format="yuv444p16le")
    frame = frame.reformat(format="yuv420p10le")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = *light.shape[:2], "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, transfer, 9, 1
        frame.pts = 0
        frame.colorspace, frame.color_range = 9, 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("transfer", [16, 18])
def test_telephones_hdr_looks_like_ordinary_video(tmp_path: Path, transfer: int) -> None:
    """Greys and colours below diffuse white come back to within a few levels; highlights are compressed, not clipped."""
    wanted = np.array([[110, 71, 65], [60, 60, 60], [150, 120, 110], [40, 90, 60], [190, 190, 190]])
    signal = wanted / 255
    linear = np.where(signal < 0.081, signal / 4.5, ((signal + 0.099) / 1.099) ** (1 / 0.45))
    wide = (
        linear
        @ np.linalg.inv(
            np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
        ).T
    )
    light = np.concatenate([wide * 203, [[203] * 3, [600] * 3, [1000] * 3]])
    picture = np.broadcast_to(light.repeat(32, axis=0)[None], (64, 256, 3)).copy()
    (got,) = read_video(hdr_video(tmp_path / "hdr.mp4", picture, transfer))
    middles = got[32, 16::32].astype(int)
    np.testing.assert_allclose(middles[:5], wanted, atol=5)
    assert 225 < middles[5, 0] < middles[6, 0] <= middles[7, 0] <= 255


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (1, True), (5, True), (9, False), (9, True)])
def test_matrix_and_range_tags_are_honoured(tmp_path: Path, matrix: int, full: bool) -> None:
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [128, 128, 128], [250, 250, 250]])
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    rgb = np.broadcast_to(colours.repeat(32, axis=0)[None], (64, 160, 3)) / 255
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    planes = (
        [luma * 255, *(255 * c + 128 for c in chroma)] if full else [219 * luma + 16, *(224 * c + 128 for c in chroma)]
    )
    whole = np.stack(planes).clip(0, 255).round().astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(whole.transpose(0, 1, 2), format="yuv444p")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        frame.pts, frame.colorspace, frame.color_range = 0, matrix, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (picture,) = read_video(path)
    np.testing.assert_allclose(picture[32, 16::32].astype(int), colours, atol=5)
