"""Writing video: frames and speech into an mp4, streamed, whole or absent, that says how it was made."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from fedtalk.data.clip import FRAME_RATE, SAMPLE_RATE
from fedtalk.data.media import PathLike, check_frame, checked_audio
from fedtalk.data.provenance import Provenance, sign
from fedtalk.data.visible_mark import draw_mark
from fedtalk.errors import ConfigurationError, MediaError, OutputError
from fedtalk.storage import atomic_path

AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Sample rates that players of AAC expect."""


@dataclass(frozen=True)
class AudioStream:
    """Sound that is read while it is written."""

    rate: int
    """Samples a second, one of `AAC_RATES`."""
    channels: int
    """1 or 2."""
    blocks: Iterable[np.ndarray]
    """(channels, n) float32 in [-1, 1] each."""

    def __post_init__(self) -> None:
        if self.rate not in AAC_RATES or self.channels not in (1, 2):
            raise MediaError(
                f"sound: expected 1 or 2 channels at {AAC_RATES} samples a second, got {self.channels} at {self.rate}"
            )


class VideoWriter:
    """Streams frames into an mp4 (H.264 where the ffmpeg at hand encodes it, else MPEG-4; AAC sound), atomically.

    The file has exactly the frames that were written and a sound track of their length: longer sound is cut, shorter
    sound is followed by silence. It appears under its name when the block ends without an error.

    ::

        with VideoWriter("talk.mp4", audio=audio, scale=4) as writer:
            for frame in frames:
                writer.write(frame)

    Args:
        path: file to write, ``.mp4``.
        audio: (N,) float32 in [-1, 1] at 16 kHz, or an `AudioStream`, or None for a silent video without a sound track.
        sample_rate: of ``audio`` where it is an array; only 16 000 is accepted.
        scale: whole factor by which pictures are enlarged (cubic), since players show 64 pixels as a stamp.
        codec: ffmpeg's name of the video encoder; None takes libx264 or else mpeg4.
        frame_rate: frames a second where `write` is given no times.
        time_base: seconds of one tick of the times that `write` is given; one frame by default.
        metadata: tags of the file; `Provenance.metadata` goes before them.
        provenance: what the file says about how it was made, in its metadata and in a signed manifest; None for what no
            model has touched.
        mark: draw the words of `fedtalk.data.visible_mark` into each frame.

    Raises:
        MediaError: unusable audio or frames, or no frame at all by the end of the block.
        ConfigurationError: another suffix, or a scale below 1.
        OutputError: the file can't be written or signed; an older file of that name is untouched.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        audio: np.ndarray | AudioStream | None = None,
        sample_rate: int = SAMPLE_RATE,
        scale: int = 1,
        codec: str | None = None,
        frame_rate: Fraction | int = FRAME_RATE,
        time_base: Fraction | None = None,
        metadata: Mapping[str, str] | None = None,
        provenance: Provenance | None = None,
        mark: bool = False,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ConfigurationError(f"video {path}: expected a name that ends in .mp4, got {self.path.suffix!r}")
        if scale < 1:
            raise ConfigurationError(f"scale of video {path}: expected 1 or more, got {scale}")
        if audio is not None and not isinstance(audio, AudioStream):
            audio = AudioStream(SAMPLE_RATE, 1, [checked_audio(audio, sample_rate, what=f"sound for {path}")[None]])
        self._sound_source = audio
        self._scale, self._mark, self._provenance = scale, mark, provenance
        self._metadata = _joined(metadata or {}, provenance)
        self._codec = codec or ("libx264" if "libx264" in av.codecs_available else "mpeg4")
        self._rate = Fraction(frame_rate)
        self._time_base = time_base or 1 / self._rate
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._shape: tuple[int, ...] | None = None
        self._temporary: Path | None = None
        self._end = 0
        self._ticks: dict[int, int] = {}
        self.frames = 0
        """Frames written so far."""

    @property
    def seconds(self) -> Fraction:
        """Of video written so far."""
        return self._end * self._time_base

    def __enter__(self) -> VideoWriter:
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        return self

    def write(self, frame: np.ndarray, ticks: int = 1) -> None:
        """Append a frame.

        Args:
            frame: (H, W, 3) uint8 RGB; all frames of a file have one shape, even after scaling.
            ticks: how long it is shown, in units of ``time_base``.
        """
        check_frame(frame)
        if self._container is None:
            self._start(frame.shape)
        if frame.shape != self._shape:
            raise MediaError(f"frame {self.frames} for {self.path}: expected shape {self._shape}, got {frame.shape}")
        if self._scale > 1:
            size = (frame.shape[1] * self._scale, frame.shape[0] * self._scale)
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
        if self._mark:
            frame = draw_mark(frame)
        with self._reported():
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            picture.pts, picture.time_base, picture.duration = self._end, self._time_base, ticks
            self._ticks[self._end] = ticks
            self._mux_pictures(picture)
            self._end += ticks
            if self._sound is not None:
                self._container.mux(self._sound.until(self._end * self._time_base))
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._abandon()
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        self._stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        if self._container is None:
            raise MediaError(f"video {self.path}: expected at least one frame, got none")
        with self._reported():
            self._mux_pictures(None)
            if self._sound is not None:
                self._container.mux(self._sound.end())
            self._container.close()
            if self._provenance is not None:
                assert self._temporary is not None
                signed = self._stack.enter_context(atomic_path(self._temporary))
                sign(self._temporary, signed, self._provenance)

    def _mux_pictures(self, picture: av.VideoFrame | None) -> None:
        """Encode a picture, or what is left; packets get their own durations, for which the encoder takes the frame rate's."""
        for packet in self._video.encode(picture):
            if packet.pts in self._ticks and packet.time_base == self._time_base:
                packet.duration = self._ticks.pop(packet.pts)
            self._container.mux(packet)

    def _start(self, shape: tuple[int, ...]) -> None:
        height, width = shape[0] * self._scale, shape[1] * self._scale
        if height % 2 or width % 2:
            raise MediaError(f"frames for {self.path}: H.264 needs even sides, got {width} x {height}; use scale=2")
        with self._reported():
            # These flags put the index in front, and keep tags that mp4 has no four letters for.
            self._container = av.open(
                str(self._temporary), "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}
            )
            self._container.metadata.update(self._metadata)
            self._video = self._container.add_stream(self._codec, rate=self._rate)
            self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
            context = self._video.codec_context
            context.time_base = self._video.time_base = self._time_base
            context.thread_count = 1  # the same bits for any number of processors
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = 1, 1, 1, 1  # BT.709
            if self._codec == "libx264":
                self._video.options = {"crf": "18", "preset": "veryfast"}
            else:
                context.bit_rate = max(400_000, int(width * height * self._rate / 4))
            self._sound = _SoundTrack(self._container, self._sound_source) if self._sound_source else None
        self._shape = shape

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn ffmpeg's errors into ours, and leave no half-open file behind."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self._abandon()
            raise OutputError(
                f"writing {self.path} failed: {error.strerror or error}. Nothing was left behind and an older file, if there "
                "was one, is untouched. Free some space or choose another output folder, then run again."
            ) from error

    def _abandon(self) -> None:
        if self._container is not None:
            with contextlib.suppress(
                av.FFmpegError, OSError
            ):  # the file is thrown away; closing must not hide the cause
                self._container.close()
            self._container = None


class _SoundTrack:
    """Sound on its way into a file, never further than the picture."""

    def __init__(self, container: Any, sound: AudioStream) -> None:
        layout = "mono" if sound.channels == 1 else "stereo"
        self._track = container.add_stream("aac", rate=sound.rate, layout=layout)
        self._track.bit_rate = sound.channels * (64_000 if sound.rate <= 24_000 else 96_000)
        self._sound, self._layout = sound, layout
        self._blocks = iter(sound.blocks)
        self._left = np.zeros((sound.channels, 0), np.float32)
        self._written = 0

    def until(self, seconds: Fraction) -> list[Any]:
        """Packets of the sound up to an instant; silence where the source has ended."""
        missing = round(seconds * self._sound.rate) - self._written
        if missing <= 0:
            return []
        pieces, length = [self._left], self._left.shape[1]
        while length < missing:
            block = next(self._blocks, None)
            if block is None:
                block = np.zeros((self._sound.channels, missing - length), np.float32)
            pieces.append(block)
            length += block.shape[1]
        samples = np.concatenate(pieces, axis=1)
        samples, self._left = samples[:, :missing], samples[:, missing:]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts = self._sound.rate, self._written
        frame.time_base = Fraction(1, self._sound.rate)
        self._written += missing
        return self._track.encode(frame)

    def end(self) -> list[Any]:
        return self._track.encode(None)


def _joined(metadata: Mapping[str, str], provenance: Provenance | None) -> dict[str, str]:
    """The tags, with what the provenance says in front of a comment that is there already."""
    tags = dict(metadata)
    for name, text in (provenance.metadata if provenance else {}).items():
        former = tags.get(name) if name == "comment" else None
        tags[name] = f"{text}; {former}" if former and text not in former else text
    return tags
