"""Sound and video that are written read back, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import coded, number_of, sine

from fedtalk.data.media import (
    read_audio,
    read_video,
    write_audio,
    write_image,
)
from fedtalk.data.video_writer import VideoWriter
from fedtalk.errors import ConfigurationError, MediaError, OutputError


def test_written_sound_reads_back(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", sine(1.0))
    with wave.open(str(tmp_path / "a.wav")) as stream:
        assert (stream.getframerate(), stream.getnchannels(), stream.getsampwidth()) == (16_000, 1, 2)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), sine(1.0), atol=1e-4)


@pytest.mark.parametrize("codec", [None, "mpeg4"])
@pytest.mark.parametrize(("count", "audio_seconds"), [(1, 1.0), (37, 0.5), (37, 3.0), (50, 2.0)])
def test_written_video_has_exactly_its_frames_and_as_much_sound(
    tmp_path: Path, codec: str | None, count: int, audio_seconds: float
) -> None:
    path, audio = tmp_path / "out.mp4", sine(audio_seconds)
    with VideoWriter(path, audio=audio, scale=2, codec=codec) as writer:
        for number in range(count):
            writer.write(coded(number))
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.pix_fmt == "yuv420p"
        assert video.duration * video.time_base == sound.duration * sound.time_base == Fraction(count, 25)
        assert video.start_time == sound.start_time == 0
    pictures = list(read_video(path))
    assert [number_of(picture) for picture in pictures] == list(range(count))
    assert pictures[0].shape == (128, 256, 3)
    wanted = np.zeros(count * 640, np.float32)
    wanted[: len(audio)] = audio[: len(wanted)]
    np.testing.assert_allclose(read_audio(path)[200 : len(wanted) - 200], wanted[200:-200], atol=0.1)


def test_written_colours_survive(tmp_path: Path) -> None:
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [128, 128, 128], [250, 250, 250]], np.uint8)
    frame = np.broadcast_to(colours.repeat(32, axis=0)[None], (64, 160, 3)).copy()
    with VideoWriter(tmp_path / "colours.mp4") as writer:
        writer.write(frame)
    (picture,) = read_video(tmp_path / "colours.mp4")
    np.testing.assert_allclose(picture[32, 16::32].astype(int), colours, atol=4)


def test_an_interrupted_video_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, audio=sine(1.0)) as writer:
        writer.write(coded(0))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: writes fail in the same place."""
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    program = f"""
        import resource
        import numpy as np
        from fedtalk.data.video_writer import VideoWriter
        from fedtalk.errors import OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        frames = np.random.default_rng(0).integers(0, 255, (60, 128, 128, 3), dtype=np.uint8)
        try:
            with VideoWriter({str(path)!r}) as writer:
                for frame in frames:
                    writer.write(frame)
        except OutputError as error:
            print("reported:", error)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("reported:"), run.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_frames_and_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(MediaError, match="at least one frame"), VideoWriter(path):
        pass
    with pytest.raises(MediaError, match="even sides"), VideoWriter(path) as writer:
        writer.write(np.zeros((33, 32, 3), np.uint8))
    with pytest.raises(MediaError, match="expected shape"), VideoWriter(path) as writer:
        writer.write(coded(0))
        writer.write(coded(0)[:32])
    with pytest.raises(MediaError, match="uint8"), VideoWriter(path) as writer:
        writer.write(np.zeros((32, 32, 3), np.float32))
    for bad in ({"path": tmp_path / "out.avi"}, {"path": path, "scale": 0}):
        with pytest.raises(ConfigurationError):
            VideoWriter(**bad)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError), VideoWriter(tmp_path / "file" / "out.mp4"):
        pass
    with pytest.raises(OutputError):
        write_image(tmp_path / "file" / "out.png", coded(0))
    with pytest.raises(OutputError, match="suffix"):
        write_image(tmp_path / "out.xyz", coded(0))
