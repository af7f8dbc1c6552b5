"""`fedtalk generate`."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import torch

from fedtalk.data.clip import SAMPLES_PER_FRAME, Reference
from fedtalk.data.media import read_audio, read_image
from fedtalk.data.prepare import prepare_portrait, prepare_video
from fedtalk.data.video_writer import VideoWriter
from fedtalk.errors import ConfigurationError, MediaError
from fedtalk.talker.backbone import SHIPPED
from fedtalk.talker.module import Talker

log = logging.getLogger("fedtalk")


def generate(
    audio: str,
    out: str,
    portrait: str | None = None,
    video: str | None = None,
    adapter: str | None = None,
    backbone: str = SHIPPED,
    guidance: float = 1.5,
    sampling_steps: int = 10,
    stride: int = 4,
    seed: int = 0,
    scale: int = 4,
    finder: str = "dlib",
    threads: int | None = None,
) -> None:
    """Make a talking-head video of any length: a portrait and speech in, a speaking face with sound out.

    Args:
        audio: speech, any file with sound that ffmpeg reads.
        out: mp4 to write; exactly as long as the speech (in whole frames of 1/25 s).
        portrait: picture of the person; the whole face is drawn from it.
        video: instead of a portrait, a video of the person whose mouth is to follow the speech (dubbing).
        adapter: personal adapter folder, for instance RUN/adapters/PERSON; none uses the backbone alone.
        backbone: 'shipped' or the folder of the backbone that the adapter was trained on.
        guidance: weight of the audio; above 1 the mouth moves more clearly, at twice the time.
        sampling_steps: denoising steps.
        stride: frames between sampling windows of 8 frames; smaller is smoother and slower.
        seed: of the noise.
        scale: factor by which frames are enlarged in the video.
        finder: face finder: dlib (needs no download), yunet or face-alignment.
        threads: CPU threads; all that torch finds by default.
    """
    if (portrait is None) == (video is None):
        raise ConfigurationError("generate: give either --portrait PICTURE or --video VIDEO")
    if threads:
        torch.set_num_threads(threads)
    sound = read_audio(audio)
    count = len(sound) // SAMPLES_PER_FRAME
    if count < 1:
        raise MediaError(f"{audio}: {len(sound) / 16_000:.3f} s of sound; expected at least one frame (0.04 s)")
    sound = sound[: count * SAMPLES_PER_FRAME]
    talker = Talker(backbone, guidance=guidance, sampling_steps=sampling_steps, stride=stride)
    if adapter is not None:
        talker.load_adapter(Path(adapter))
    talker.eval()
    size = talker.backbone.architecture.size
    speech = torch.from_numpy(sound)
    if portrait is not None:
        picture, eyes, _ = prepare_portrait(read_image(portrait), size, finder)
        frames = talker.portrait(speech, Reference(picture, eyes), seed)
    else:
        clip = prepare_video(str(video), size, finder)
        if len(clip) < count:
            raise MediaError(
                f"{video}: {len(clip)} frames, the speech needs {count}; give a longer video or shorter speech"
            )
        clip = clip.window(0, count)
        frames = talker.dub(clip, clip.reference(0), seed, speech)
    with VideoWriter(out, audio=sound, scale=scale) as writer:
        for index, frame in enumerate(itertools.islice(frames, count)):
            writer.write(frame.numpy())
            if (index + 1) % 250 == 0:
                log.info("%d of %d frames", index + 1, count)
    print(f"wrote {out}: {count} frames, {count / 25:.2f} s")
