"""Writing video: frames and speech into an mp4, streamed, whole or absent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from fedtalk.data.clip import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from fedtalk.data.media import PathLike, check_frame, checked_audio
from fedtalk.errors import ConfigurationError, MediaError, OutputError
from fedtalk.storage import atomic_path


class VideoWriter:
    """Streams frames into an mp4 (H.264 where the ffmpeg at hand encodes it, else MPEG-4; AAC sound), atomically.

    The file has exactly the frames that were written, 25 a second, and a sound track of 640 samples a frame: longer
    audio is cut, shorter audio is followed by silence. It appears under its name when the block ends without an error.

    ::

        with VideoWriter("talk.mp4", audio=audio, scale=4) as writer:
            for frame in frames:
                writer.write(frame)

    Args:
        path: file to write, ``.mp4``.
        audio: (N,) float32 in [-1, 1], or None for a silent video without a sound track.
        sample_rate: of ``audio``; only 16 000 is accepted.
        scale: whole factor by which pictures are enlarged (cubic), since players show 64 pixels as a stamp.
        codec: ffmpeg's name of the video encoder; None takes libx264 or else mpeg4.

    Raises:
        MediaError: unusable audio or frames, or no frame at all by the end of the block.
        ConfigurationError: another suffix, or a scale below 1.
        OutputError: the file can't be written; an older file of that name is untouched.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        audio: np.ndarray | None = None,
        sample_rate: int = SAMPLE_RATE,
        scale: int = 1,
        codec: str | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ConfigurationError(f"video {path}: expected a name that ends in .mp4, got {self.path.suffix!r}")
        if scale < 1:
            raise ConfigurationError(f"scale of video {path}: expected 1 or more, got {scale}")
        self._audio = None if audio is None else checked_audio(audio, sample_rate, what=f"sound for {path}")
        self._scale = scale
        self._codec = codec or ("libx264" if "libx264" in av.codecs_available else "mpeg4")
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._shape: tuple[int, ...] | None = None
        self._temporary: Path | None = None
        self.frames = 0
        """Frames written so far."""

    def __enter__(self) -> VideoWriter:
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, (H, W, 3) uint8 RGB; all frames of a file have one shape, even after scaling."""
        check_frame(frame)
        if self._container is None:
            self._start(frame.shape)
        if frame.shape != self._shape:
            raise MediaError(f"frame {self.frames} for {self.path}: expected shape {self._shape}, got {frame.shape}")
        if self._scale > 1:
            size = (frame.shape[1] * self._scale, frame.shape[0] * self._scale)
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
        with self._reported():
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            picture.pts = self.frames
            self._container.mux(self._video.encode(picture))
            if self._audio is not None:
                self._write_sound(self._audio[self.frames * SAMPLES_PER_FRAME :][:SAMPLES_PER_FRAME])
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
            self._container.mux(self._video.encode(None))
            if self._audio is not None:
                self._container.mux(self._sound.encode(None))
            self._container.close()

    def _start(self, shape: tuple[int, ...]) -> None:
        height, width = shape[0] * self._scale, shape[1] * self._scale
        if height % 2 or width % 2:
            raise MediaError(f"frames for {self.path}: H.264 needs even sides, got {width} x {height}; use scale=2")
        with self._reported():
            self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
            self._video = self._container.add_stream(self._codec, rate=FRAME_RATE)
            self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
            context = self._video.codec_context
            context.thread_count = 1  # one thread: the same bits on every machine
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = 1, 1, 1, 1  # BT.709
            if self._codec == "libx264":
                self._video.options = {"crf": "18", "preset": "veryfast"}
            else:
                context.bit_rate = max(400_000, width * height * FRAME_RATE // 4)
            if self._audio is not None:
                self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
                self._sound.bit_rate = 64_000
        self._shape = shape

    def _write_sound(self, samples: np.ndarray) -> None:
        block = np.zeros((1, SAMPLES_PER_FRAME), np.float32)
        block[0, : len(samples)] = samples
        sound = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        sound.sample_rate = SAMPLE_RATE
        sound.pts = self.frames * SAMPLES_PER_FRAME
        self._container.mux(self._sound.encode(sound))

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn ffmpeg's errors into ours, and leave no half-open file behind."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self._abandon()
            raise OutputError(
                f"writing {self.path} failed: {error}. Nothing was left behind and an older file, if there was one, "
                "is untouched. Free some space or choose another output folder, then run again."
            ) from error

    def _abandon(self) -> None:
        if self._container is not None:
            with contextlib.suppress(
                av.FFmpegError, OSError
            ):  # the file is thrown away; closing must not hide the cause
                self._container.close()
            self._container = None
