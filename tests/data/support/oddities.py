"""Broken and odd videos, built here: each a function that writes a file, with what must become of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

RATE, COUNT, WIDTH, HEIGHT = 16_000, 14, 160, 120
CLIPS, REJECT, EITHER = "clips", "reject", "either"


def face(index: int, eye: int = 26, x: float = 80, y: float = 50, level: int = 90) -> np.ndarray:
    """(120, 160, 3): red and green eye, blue mouth, a chin that moves."""
    picture = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for dx, dy, colour in ((-0.5, 0, (230, 0, 0)), (0.5, 0, (0, 230, 0)), (0, 1.1, (0, 0, 230))):
        picture[(columns - x - dx * eye) ** 2 + (rows - y - dy * eye) ** 2 < (eye / 5) ** 2] = colour
    half = int(eye * (0.2 + 0.12 * (index % 3)))
    low = int(y + 1.4 * eye)
    picture[low : low + 3, max(0, int(x) - half) : int(x) + half] = 30
    return picture


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


@dataclass
class Film:
    """What `write` puts into a file; the defaults are an ordinary clip."""

    count: int = COUNT
    rate: Fraction = Fraction(25)
    times: list[float] | None = None
    picture: Callable[[int], np.ndarray] = face
    codec: str = "libx264"
    pixels: str = "yuv420p"
    sound: np.ndarray | None = None
    mute: bool = False
    sound_codec: str = "aac"
    sound_rate: int = RATE
    layout: str = "mono"
    sound_start: float = 0.0
    tags: dict[str, int] | None = None
    options: dict[str, str] | None = None
    matrix: tuple[int, int, int, int] | None = None
    aspect: Fraction | None = None
    covers: int = 0


def write(path: Path, **changes: Any) -> Path:
    """Write a `Film`."""
    film = Film(**changes)
    times = film.times or [float(index / film.rate) for index in range(film.count)]
    sound = tone(times[-1] + 0.04, film.sound_rate) if film.sound is None else film.sound
    channels = len(av.AudioLayout(film.layout).channels)
    clock = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        for _ in range(film.covers):
            cover = container.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream(film.codec, rate=film.rate, options=film.options or {})
        first = film.picture(0)
        video.height, video.width, video.pix_fmt = *first.shape[:2], film.pixels
        if film.codec == "libx264":
            video.codec_context.time_base = clock
        if film.aspect:
            video.codec_context.sample_aspect_ratio = film.aspect
        if film.matrix:
            a, b, c, d = (value * 65536 for value in film.matrix)
            video.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for name, value in (film.tags or {}).items():
            setattr(video.codec_context, name, value)
        audio = None
        if not film.mute:
            audio = container.add_stream(film.sound_codec, rate=film.sound_rate, layout=film.layout)
        for stream in container.streams.video[: film.covers]:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, np.uint8), format="rgb24")
            frame.pts = 0
            container.mux(stream.encode(frame.reformat(format="yuvj420p")) + stream.encode(None))
        packets = []
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(film.picture(index), format="rgb24")
            if film.codec == "libx264":
                frame.time_base, frame.pts = clock, round(time / clock)
            else:
                frame.pts = index
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio is not None:
            samples = sound if len(sound) == channels else np.repeat(sound[:1], channels, axis=0)
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=film.layout)
            block.sample_rate, block.pts = film.sound_rate, round(film.sound_start * film.sound_rate)
            block.time_base = Fraction(1, film.sound_rate)
            packets += audio.encode(block) + audio.encode(None)
        container.mux(packets)
    return path


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """The ordinary clip with its bytes changed."""

    def build(path: Path) -> None:
        whole = write(path.with_name(".whole.mp4"))
        content = whole.read_bytes()
        whole.unlink()
        path.write_bytes(change(content))

    return build


def film(**changes: Any) -> Callable[[Path], object]:
    return lambda path: write(path, **changes)


def flipped(content: bytes) -> bytes:
    spoilt = bytearray(content)
    for place in np.random.default_rng(0).integers(len(content) // 4, len(content), 40):
        spoilt[int(place)] ^= 0xFF
    return bytes(spoilt)


def joined(*parts: dict[str, Any]) -> Callable[[Path], object]:
    def build(path: Path) -> None:
        content = b""
        for number, part in enumerate(parts):
            piece = write(path.with_name(f".piece{number}.ts"), **{"sound_codec": "mp2", **part})
            content += piece.read_bytes()
            piece.unlink()
        path.write_bytes(content)

    return build


def link(target: str) -> Callable[[Path], object]:
    return lambda path: os.symlink(target, path)


def picture_file(kind: str) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(face(0)).save(path, kind)


def many_faces(index: int) -> np.ndarray:
    return np.concatenate([face(index, 18, 40, 50)[:, :80], face(index, 18, 120, 50)[:, 80:]], axis=1)


def wide(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    canvas = np.full((height, width, 3), 90, np.uint8)
    canvas[:HEIGHT, :WIDTH] = picture
    return canvas


NOISE = np.random.default_rng(0).bytes(5_000)
NAN = tone(0.56)
NAN[:, 1000] = np.nan
OPPOSITE = np.float32([[1], [-1]])
TEXT = b"<!doctype html><title>404</title>" * 20

ODDITIES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    # name of the case: (file name, builder, what must become of it)
    "plain": ("a.mp4", film(), CLIPS),
    "empty": ("a.mp4", lambda p: p.touch(), REJECT),
    "one byte": ("a.mp4", lambda p: p.write_bytes(b"\0"), REJECT),
    "zeros": ("a.mp4", lambda p: p.write_bytes(bytes(9000)), REJECT),
    "ones": ("a.mp4", lambda p: p.write_bytes(b"\xff" * 9000), REJECT),
    "noise": ("a.mp4", lambda p: p.write_bytes(NOISE), REJECT),
    "noise mpg": ("a.mpg", lambda p: p.write_bytes(NOISE), REJECT),
    "noise ts": ("a.ts", lambda p: p.write_bytes(NOISE), REJECT),
    "noise mkv": ("a.mkv", lambda p: p.write_bytes(NOISE), REJECT),
    "page": ("a.mp4", lambda p: p.write_bytes(TEXT), REJECT),
    "playlist": ("a.mp4", lambda p: p.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"), REJECT),
    "concat list": ("a.mp4", lambda p: p.write_text("ffconcat version 1.0\nfile /etc/passwd\n"), REJECT),
    "pointer": ("a.mp4", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), REJECT),
    "png": ("a.mp4", picture_file("PNG"), REJECT),
    "jpeg": ("a.mov", picture_file("JPEG"), REJECT),
    "gif": ("a.mp4", picture_file("GIF"), REJECT),
    "cut at 10 %": ("a.mp4", raw(lambda b: b[: len(b) // 10]), REJECT),
    "cut at 50 %": ("a.mp4", raw(lambda b: b[: len(b) // 2]), REJECT),
    "cut at 95 %": ("a.mp4", raw(lambda b: b[: len(b) * 19 // 20]), REJECT),
    "last byte": ("a.mp4", raw(lambda b: b[:-1]), EITHER),
    "head off": ("a.mp4", raw(lambda b: b[100:]), REJECT),
    "head zeroed": ("a.mp4", raw(lambda b: bytes(64) + b[64:]), REJECT),
    "middle zeroed": ("a.mp4", raw(lambda b: b[:2000] + bytes(500) + b[2500:]), EITHER),
    "bits flipped": ("a.mp4", raw(flipped), EITHER),
    "no index": ("a.mp4", raw(lambda b: b.replace(b"moov", b"xoov")), REJECT),
    "no media": ("a.mp4", raw(lambda b: b.replace(b"mdat", b"xdat")), EITHER),
    "no kind": ("a.mp4", raw(lambda b: b.replace(b"ftyp", b"xtyp")), EITHER),
    "no tracks": ("a.mp4", raw(lambda b: b.replace(b"trak", b"xrak")), REJECT),
    "no sizes": ("a.mp4", raw(lambda b: b.replace(b"stsz", b"xtsz")), REJECT),
    "no times": ("a.mp4", raw(lambda b: b.replace(b"stts", b"xtts")), EITHER),
    "no codec data": ("a.mp4", raw(lambda b: b.replace(b"avcC", b"xvcC")), REJECT),
    "unknown picture": ("a.mp4", raw(lambda b: b.replace(b"avc1", b"xyz1")), REJECT),
    "sound of another tag": ("a.mp4", raw(lambda b: b.replace(b"mp4a", b"xyza")), CLIPS),
    "twice": ("a.mp4", raw(lambda b: b + b), CLIPS),
    "tail": ("a.mp4", raw(lambda b: b + NOISE), CLIPS),
    "named avi": ("a.avi", raw(lambda b: b), CLIPS),
    "named mkv": ("a.mkv", raw(lambda b: b), CLIPS),
    "capital suffix": ("A.MP4", raw(lambda b: b), CLIPS),
    "spaces": ("my  clip 1 .mp4", raw(lambda b: b), CLIPS),
    "letters": ("übung 練習 🎬.mp4", raw(lambda b: b), CLIPS),
    "new line": ("a\nb.mp4", raw(lambda b: b), CLIPS),
    "dash": ("-rf.mp4", raw(lambda b: b), CLIPS),
    "markup": ("[red]x[b].mp4", raw(lambda b: b), CLIPS),
    "colon": ("http:__x.mp4", raw(lambda b: b), CLIPS),
    "percent": ("a%03d.mp4", raw(lambda b: b), CLIPS),
    "quotes": ("a'b\"c`.mp4", raw(lambda b: b), CLIPS),
    "formula": ("=1+1.mp4", raw(lambda b: b), CLIPS),
    "long name": ("n" * 240 + ".mp4", raw(lambda b: b), CLIPS),
    "no utf-8": (os.fsdecode(b"caf\xe9.mp4"), raw(lambda b: b), CLIPS),
    "folder": ("a.mp4", lambda p: p.mkdir(), REJECT),
    "pipe": ("a.mp4", lambda p: os.mkfifo(p), REJECT),
    "link to nothing": ("a.mp4", link("nowhere.mp4"), REJECT),
    "link to itself": ("a.mp4", link("a.mp4"), REJECT),
    "mute": ("a.mp4", film(mute=True), REJECT),
    "silent": ("a.mp4", film(sound=np.zeros((1, 8960), np.float32)), REJECT),
    "mkv": ("a.mkv", film(), CLIPS),
    "mov": ("a.mov", film(), CLIPS),
    "ts": ("a.ts", film(), CLIPS),
    "flv": ("a.flv", film(sound_rate=44_100), CLIPS),
    "avi": ("a.avi", film(codec="mpeg4", sound_codec="mp2"), CLIPS),
    "motion jpeg": ("a.avi", film(codec="mjpeg", pixels="yuvj420p", sound_codec="pcm_s16le"), CLIPS),
    "mpg": ("a.mpg", film(codec="mpeg1video", sound_codec="mp2", sound_rate=44_100), CLIPS),
    "webm": ("a.webm", film(codec="libvpx", sound_codec="libopus", sound_rate=48_000), CLIPS),
    "lossless": ("a.mkv", film(codec="ffv1", sound_codec="flac"), CLIPS),
    "10 fps": ("a.mp4", film(rate=Fraction(10), count=6), CLIPS),
    "60 fps": ("a.mp4", film(rate=Fraction(60), count=34), CLIPS),
    "uneven": ("a.mp4", film(times=[0, 0.03, 0.09, 0.1, 0.17, 0.2, 0.26, 0.33, 0.35, 0.42, 0.47, 0.52, 0.55]), CLIPS),
    "starts late": ("a.mkv", film(times=[5 + i / 25 for i in range(COUNT)], sound_start=5.0, sound=tone(0.56)), CLIPS),
    "sound late": ("a.mp4", film(sound_start=0.3, sound=tone(0.26)), CLIPS),
    "sound early": ("a.mkv", film(times=[1 + i / 25 for i in range(COUNT)], sound=tone(1.56)), CLIPS),
    "sound short": ("a.mp4", film(sound=tone(0.3)), CLIPS),
    "sound long": ("a.mp4", film(sound=tone(5.0)), CLIPS),
    "sound elsewhere": ("a.mkv", film(sound_start=30.0, sound=tone(0.5)), REJECT),
    "one frame": ("a.mp4", film(count=1), REJECT),
    "jump": ("a.mkv", film(times=[i / 25 for i in range(12)] + [30 + i / 25 for i in range(12)]), CLIPS),
    "tiny": ("a.mp4", film(picture=lambda i: face(i)[:16, :16]), REJECT),
    "444": ("a.mp4", film(pixels="yuv444p"), CLIPS),
    "10 bits": ("a.mp4", film(pixels="yuv420p10le"), CLIPS),
    "full range": ("a.mp4", film(tags={"color_range": 2}), CLIPS),
    "tagged hdr": ("a.mp4", film(tags={"color_trc": 16, "color_primaries": 9, "colorspace": 9}), EITHER),
    "odd sides": ("a.mp4", film(pixels="yuv444p", picture=lambda i: face(i)[:119, :159]), CLIPS),
    "wide pixels": ("a.mp4", film(picture=lambda i: np.ascontiguousarray(face(i)[:, ::2]), aspect=Fraction(2)), CLIPS),
    "turned": ("a.mp4", film(picture=lambda i: np.ascontiguousarray(np.rot90(face(i))), matrix=(0, 1, -1, 0)), CLIPS),
    "mirrored": ("a.mp4", film(picture=lambda i: np.ascontiguousarray(face(i)[::-1]), matrix=(1, 0, 0, -1)), CLIPS),
    "large": ("a.mp4", film(picture=lambda i: wide(face(i), 720, 1280)), CLIPS),
    "8 kHz": ("a.mkv", film(sound_rate=8000, sound_codec="pcm_s16le"), CLIPS),
    "96 kHz": ("a.mkv", film(sound_rate=96_000, sound_codec="pcm_s16le"), CLIPS),
    "5.1": ("a.mkv", film(layout="5.1", sound_rate=48_000, sound_codec="ac3"), CLIPS),
    "cancelling": ("a.mkv", film(layout="stereo", sound=tone(0.56) * OPPOSITE, sound_codec="pcm_s16le"), CLIPS),
    "one NaN": ("a.mkv", film(sound=NAN, sound_codec="pcm_f32le"), CLIPS),
    "all NaN": ("a.mkv", film(sound=NAN * np.nan, sound_codec="pcm_f32le"), REJECT),
    "integer scale": ("a.mkv", film(sound=tone(0.56) * 32768, sound_codec="pcm_f32le"), CLIPS),
    "joined": ("a.ts", joined({}, {}), CLIPS),
    "joined layouts": ("a.ts", joined({"sound_rate": 44_100}, {"layout": "stereo", "sound_rate": 44_100}), CLIPS),
    "joined sizes": ("a.ts", joined({}, {"picture": lambda i: wide(face(i), 144, 176)}), CLIPS),
    "cover": ("a.mp4", film(covers=1), CLIPS),
    "black": ("a.mp4", film(picture=lambda i: face(i) * 0), REJECT),
    "still": ("a.mp4", film(picture=lambda i: face(0)), REJECT),
    "noise picture": ("a.mp4", film(picture=lambda i: np.random.default_rng(i).integers(0, 90, (120, 160, 3), np.uint8)), REJECT),
    "small face": ("a.mp4", film(picture=lambda i: face(i, 5)), REJECT),
    "at the border": ("a.mp4", film(picture=lambda i: face(i, 26, 20, 14)), REJECT),
    "two faces": ("a.mp4", film(picture=many_faces), CLIPS),
    "half black": ("a.mp4", film(count=28, picture=lambda i: face(i) * (i > 13)), CLIPS),
}  # fmt: skip
