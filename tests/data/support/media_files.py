"""Small video and sound files that say what is in them."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8


def coded(number: int, height: int = 64, width: int = 128) -> np.ndarray:
    """A picture that carries its number as black and white columns, which any codec keeps."""
    columns = np.array([255 * (number >> bit & 1) for bit in range(BITS)], np.uint8).repeat(width // BITS)
    return np.broadcast_to(columns[None, :, None], (height, width, 3)).copy()


def number_of(picture: np.ndarray) -> int:
    width = picture.shape[1]
    middles = picture[picture.shape[0] // 2, width // (2 * BITS) :: width // BITS, 1] > 128
    return int(sum(1 << bit for bit, white in enumerate(middles) if white))


def sine(seconds: float, rate: int = 16_000, frequency: float = 440.0, level: float = 0.4) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def make_video(
    path: Path,
    *,
    times: list[float] | None = None,
    rate: Fraction = Fraction(25),
    count: int = 50,
    audio: np.ndarray | None = None,
    audio_rate: int = 44_100,
    audio_start: float = 0.0,
    aspect: Fraction | None = None,
    rotation: int | None = None,
) -> Path:
    """Write coded frames at ``times`` (else ``count`` at ``rate``) with stereo sound from ``audio_start`` on."""
    times = [float(number / rate) for number in range(count)] if times is None else times
    clock = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264" if path.suffix != ".mpg" else "mpeg1video", rate=rate)
        video.width, video.height, video.pix_fmt = 128, 64, "yuv420p"
        video.codec_context.time_base = clock if path.suffix != ".mpg" else 1 / rate
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        if audio is not None:
            sound = container.add_stream("aac" if path.suffix != ".mpg" else "mp2", rate=audio_rate, layout="stereo")
            block = av.AudioFrame.from_ndarray(np.stack([audio, audio]), format="fltp", layout="stereo")
            block.sample_rate, block.pts = audio_rate, round(audio_start * audio_rate)
            block.time_base = Fraction(1, audio_rate)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(coded(number % 2**BITS), format="rgb24")
            frame.time_base, frame.pts = clock, round(time / clock)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


def make_wav(path: Path, channels: np.ndarray, rate: int) -> Path:
    """(C, N) float as 16-bit WAV."""
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(len(channels))
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes((channels.T * 32767).round().astype("<i2").tobytes())
    return path


def remuxed(source: Path, target: Path, container: str, **options: str) -> Path:
    """The same packets in another kind of file."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container, options=options) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target
