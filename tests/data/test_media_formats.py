"""Speech and video in the formats that people bring: each read right, in length, place, orientation and colour."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_files import sine
from PIL import Image

from fedtalk.data.media import native_frames, read_audio, read_image, read_video
from fedtalk.errors import MediaError

ONSET, SECONDS = 0.7, 1.5
SPEECH: dict[str, tuple[str, str, int, str]] = {
    # name: (file, codec, rate, layout)
    "vorbis": ("a.ogg", "vorbis", 44_100, "stereo"),
    "opus in ogg": ("a.ogg", "libopus", 48_000, "mono"),
    "opus": ("a.opus", "libopus", 48_000, "stereo"),
    "opus in mp4": ("a.mp4", "libopus", 48_000, "mono"),
    "wma": ("a.wma", "wmav2", 44_100, "stereo"),
    "m4a": ("a.m4a", "aac", 44_100, "stereo"),
    "alac": ("a.m4a", "alac", 48_000, "mono"),
    "aac": ("a.aac", "aac", 22_050, "mono"),
    "flac": ("a.flac", "flac", 96_000, "stereo"),
    "aiff": ("a.aiff", "pcm_s16be", 44_100, "mono"),
    "amr": ("a.amr", "libopencore_amrnb", 8_000, "mono"),
    "3gp": ("a.3gp", "libopencore_amrnb", 8_000, "mono"),
    "webm": ("a.webm", "libopus", 48_000, "mono"),
    "mka": ("a.mka", "flac", 44_100, "mono"),
    "caf": ("a.caf", "pcm_s16le", 44_100, "mono"),
    "mp3": ("a.mp3", "libmp3lame", 44_100, "stereo"),
    "mp3 of speech": ("a.mp3", "libmp3lame", 16_000, "mono"),
    "24 bits": ("a.wav", "pcm_s24le", 48_000, "mono"),
    "32 bits": ("a.wav", "pcm_s32le", 48_000, "stereo"),
    "float": ("a.wav", "pcm_f32le", 48_000, "mono"),
    "double": ("a.wav", "pcm_f64le", 44_100, "mono"),
    "8 bits": ("a.wav", "pcm_u8", 11_025, "mono"),
    "telephone": ("a.wav", "pcm_mulaw", 8_000, "mono"),
    "96 kHz": ("a.wav", "pcm_s16le", 96_000, "stereo"),
    "192 kHz": ("a.wav", "pcm_s24le", 192_000, "mono"),
    "5.1": ("a.wav", "pcm_s16le", 48_000, "5.1"),
    "7.1": ("a.flac", "flac", 48_000, "7.1"),
    "7.1 in mp4": ("a.m4a", "aac", 48_000, "7.1"),
    "ac3": ("a.ac3", "ac3", 48_000, "5.1"),
}


def speech(path: Path, codec: str, rate: int, layout: str) -> Path:
    """Silence and then a tone, the same in all channels."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder for {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        stream.bit_rate = 12_200 if codec == "libopencore_amrnb" else 128_000
        samples = sine(SECONDS, rate)
        samples[: round(ONSET * rate)] = 0
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        channels = len(av.AudioLayout(layout).channels)
        block = av.AudioFrame(format="fltp", layout=layout, samples=len(samples))
        for plane, _ in zip(block.planes, range(channels), strict=False):  # from_ndarray can't do eight channels
            plane.update(samples)
        block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
        for one in resampler.resample(block) + resampler.resample(None):
            container.mux(stream.encode(one))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("kind", SPEECH)
def test_speech(tmp_path: Path, kind: str) -> None:
    name, *how = SPEECH[kind]
    path = speech(tmp_path / name, *how)
    got = read_audio(path)
    onset = int(np.argmax(np.abs(got) > 0.15)) / 16_000
    print(f"{kind}: {1000 * (onset - ONSET):+.1f} ms, {len(got) / 16_000:.3f} s")
    # coders without a place to say by how much they come late: 1024 samples of AAC, 2048 of WMA, AMR's look-ahead and filters
    assert onset == pytest.approx(ONSET, abs={"aac": 0.048, "wma": 0.048, "amr": 0.025, "3gp": 0.025}.get(kind, 0.02))
    assert len(got) / 16_000 == pytest.approx(SECONDS, abs=0.1)
    assert np.sqrt((got[14_000:22_000] ** 2).mean()) == pytest.approx(
        0.4 / 2**0.5, rel=0.25 if how[0] == "libopencore_amrnb" else 0.15
    )
    with pytest.raises(MediaError, match="no video track"):
        read_video(path)


def with_cover(path: Path) -> Path:
    """The same file with a picture in its tag: an APIC frame of ID3v2.3, a PICTURE block of FLAC."""
    drawn = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(drawn, "JPEG")
    picture, sound = drawn.getvalue(), path.read_bytes()
    if path.suffix == ".mp3":
        body = b"\0image/jpeg\0\x03\0" + picture
        frame = b"APIC" + struct.pack(">IH", len(body), 0) + body
        size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
        path.write_bytes(b"ID3\3\0\0" + size + frame + sound)
    else:
        block = (
            struct.pack(">II", 3, 10) + b"image/jpeg" + struct.pack(">IIIIII", 0, 64, 64, 24, 0, len(picture)) + picture
        )
        path.write_bytes(sound[:42] + b"\6" + struct.pack(">I", len(block))[1:] + block + sound[42:])
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac")])
def test_a_cover_is_no_video(tmp_path: Path, name: str, codec: str) -> None:
    path = with_cover(speech(tmp_path / name, codec, 44_100, "stereo"))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert int(np.argmax(np.abs(read_audio(path)) > 0.15)) / 16_000 == pytest.approx(ONSET, abs=0.02)
    with pytest.raises(MediaError, match="got a cover"):
        read_video(path)


COLOURS = np.array([[[200, 40, 40], [40, 190, 40]], [[40, 40, 200], [180, 180, 60]]], np.uint8)
"""Of a picture's quarters."""


def quarters(height: int, width: int, number: int) -> np.ndarray:
    """Four colours, and a white bar in the middle that grows by a twentieth with each picture."""
    rows, columns = (np.arange(height) >= height // 2).astype(int), (np.arange(width) >= width // 2).astype(int)
    picture = COLOURS[rows[:, None], columns[None]].copy()
    picture[height // 2 - height // 10 : height // 2 + height // 10, : round(width * (number % 21) / 20)] = 255
    return picture


VIDEO: dict[str, dict[str, Any]] = {
    "vp8": {"name": "a.webm", "codec": "libvpx"},
    "vp9": {"name": "a.webm", "codec": "libvpx-vp9"},
    "av1": {"name": "a.webm", "codec": "libsvtav1"},
    "av1 in mp4": {"name": "a.mp4", "codec": "libsvtav1", "pixels": "yuv420p10le"},
    "matroska": {"name": "a.mkv"},
    "motion jpeg": {"name": "a.avi", "codec": "mjpeg", "pixels": "yuvj422p"},
    "xvid": {"name": "a.avi", "codec": "mpeg4"},
    "prores": {"name": "a.mov", "codec": "prores_ks", "pixels": "yuv422p10le"},
    "prores 4444": {"name": "a.mov", "codec": "prores_ks", "pixels": "yuva444p10le"},
    "hevc 10 bits": {"name": "a.mov", "codec": "libx265", "pixels": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "gif": {"name": "a.gif", "codec": "gif", "pixels": "rgb8"},
    "mpeg-1": {"name": "a.mpg", "codec": "mpeg1video"},
    "mpeg-2": {"name": "a.mpg", "codec": "mpeg2video"},
    "vob": {"name": "a.vob", "codec": "mpeg2video"},
    "transport stream": {"name": "a.ts"},
    "flash": {"name": "a.flv"},
    "windows": {"name": "a.wmv", "codec": "wmv2"},
    "3gp": {"name": "a.3gp", "codec": "h263", "size": (144, 176), "aspect": Fraction(12, 11)},
    "interlaced": {"name": "a.mp4", "options": {"x264-params": "interlaced=1:tff=1"}, "size": (128, 192)},
    "wide pixels": {"name": "a.mp4", "aspect": Fraction(64, 45), "size": (144, 180)},
    "odd sides": {"name": "a.mp4", "pixels": "yuv444p", "size": (201, 359)},
    "odd sides, vp9": {"name": "a.webm", "codec": "libvpx-vp9", "size": (201, 359)},
    "upright": {"name": "a.mp4", "size": (192, 108)},
    "raw": {"name": "a.avi", "codec": "rawvideo", "pixels": "yuv420p"},
    "lossless rgb": {"name": "a.mkv", "codec": "ffv1", "pixels": "bgr0"},
    "grey": {"name": "a.mp4", "pixels": "gray"},
}  # fmt: skip


def video(
    path: Path, codec: str, pixels: str, size: tuple[int, int], aspect: Fraction | None, options: dict[str, str]
) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder for {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.bit_rate = 4_000_000
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(quarters(*size, number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("kind", VIDEO)
def test_video(tmp_path: Path, kind: str) -> None:
    facts = VIDEO[kind]
    size, pixels = facts.get("size", (128, 192)), facts.get("pixels", "yuv420p")
    path = video(
        tmp_path / facts["name"],
        facts.get("codec", "libx264"),
        pixels,
        size,
        facts.get("aspect"),
        facts.get("options", {}),
    )
    pictures = list(read_video(path))
    print(f"{kind}: {len(pictures)} frames of {pictures[0].shape}")
    assert len(pictures) == pytest.approx(20, abs=0 if kind != "windows" else 1)
    height, width = size[0], round(size[1] * float(facts.get("aspect") or 1))
    grey = COLOURS @ np.array([0.299, 0.587, 0.114])
    for number, picture in enumerate(pictures[:19]):
        assert picture.shape == (height, width, 3)
        seen = picture[height // 6 :: height * 2 // 3, width // 4 :: width // 2][:2, :2].astype(float)
        wanted = COLOURS.astype(float) if pixels != "gray" else np.repeat(grey[..., None], 3, 2)
        assert np.abs(seen - wanted).max() <= (60 if kind == "gif" else 22 if kind == "3gp" else 14), kind
        bar = (picture[height // 2].min(axis=1) > 205).sum() * 20 / width
        assert bar == pytest.approx(number, abs=0.6)
    assert len(list(native_frames(path))) == 20


PICTURES: dict[str, Any] = {
    "palette": lambda picture, path: picture.convert("P", palette=Image.Palette.ADAPTIVE).save(path.with_suffix(".png")),
    "grey": lambda picture, path: picture.convert("L").save(path.with_suffix(".png")),
    "one bit": lambda picture, path: picture.convert("1").save(path.with_suffix(".png")),
    "cmyk": lambda picture, path: picture.convert("CMYK").save(path.with_suffix(".jpg"), quality=95),
    "ycc": lambda picture, path: picture.save(path.with_suffix(".jpg"), quality=95, progressive=True),
    "lab": lambda picture, path: picture.convert("LAB").save(path.with_suffix(".tiff")),
    "16 bits": lambda picture, path: Image.fromarray(
        np.asarray(picture.convert("L")).astype(np.uint16) * 257
    ).save(path.with_suffix(".png")),
    "bmp": lambda picture, path: picture.save(path.with_suffix(".bmp")),
    "webp": lambda picture, path: picture.save(path.with_suffix(".webp"), lossless=True),
    "jpeg 2000": lambda picture, path: picture.save(path.with_suffix(".jp2")),
    "ico": lambda picture, path: picture.resize((128, 128)).save(path.with_suffix(".ico"), sizes=[(128, 128)]),
    "tga": lambda picture, path: picture.save(path.with_suffix(".tga")),
    "ppm": lambda picture, path: picture.save(path.with_suffix(".ppm")),
    "wrong suffix": lambda picture, path: picture.save(path.with_suffix(".jpg"), "PNG"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(tmp_path: Path, kind: str) -> None:
    picture = Image.fromarray(quarters(120, 180, 0))
    PICTURES[kind](picture, tmp_path / "a")
    (path,) = tmp_path.iterdir()
    got = read_image(path)
    assert got.shape == ((128, 128, 3) if kind == "ico" else (120, 180, 3))
    wanted = {"grey": "L", "16 bits": "L", "one bit": "1"}.get(kind, "RGB")
    seen = np.asarray(Image.fromarray(got).resize((2, 2), Image.Resampling.BOX)).astype(float)
    right = np.asarray(picture.convert(wanted).convert("RGB").resize((2, 2), Image.Resampling.BOX)).astype(float)
    assert np.abs(seen - right).max() < (12 if kind in ("cmyk", "lab") else 5)


def test_a_huge_picture_and_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (8000, 6000), (200, 40, 40)).save(tmp_path / "huge.jpg", quality=50)
    assert read_image(tmp_path / "huge.jpg").shape == (6000, 8000, 3)
    Image.new("RGB", (1, 1), (200, 40, 40)).save(tmp_path / "tiny.png")
    assert read_image(tmp_path / "tiny.png").shape == (1, 1, 3)


@pytest.mark.parametrize("channel", [0, 1])
def test_one_dead_channel(tmp_path: Path, channel: int) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as stream:
        stream.setnchannels(2)
        stream.setsampwidth(2)
        stream.setframerate(16_000)
        both = np.zeros((16_000, 2))
        both[:, channel] = sine(1.0)
        stream.writeframes((both * 32767).astype("<i2").tobytes())
    assert np.abs(read_audio(tmp_path / "a.wav")).max() == pytest.approx(0.2, abs=0.01)
