"""`fedtalk generate --portrait P --audio A --out O`: a picture and speech to a speaking face."""

from __future__ import annotations

from pathlib import Path

import torch

from fedtalk.data.faces import Finder
from fedtalk.errors import ConfigurationError, MediaError
from fedtalk.talker.backbone import SHIPPED
from fedtalk.talker.production.files import Order, make_batch, make_file
from fedtalk.talker.production.generate import Precision
from fedtalk.talker.production.recording import WhenShort


def generate(
    audio: str | None = None,
    out: str | None = None,
    portrait: str | None = None,
    video: str | None = None,
    batch: str | None = None,
    adapter: str | None = None,
    run: str | None = None,
    backbone: str = SHIPPED,
    guidance: float = 1.0,
    steps: int = 1,
    stride: int = 4,
    seed: int = 0,
    scale: int = 4,
    keep_picture: bool = False,
    when_short: WhenShort = "loop",
    learn_looks: bool = True,
    mark: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision = "32",
    finder: Finder = "dlib",
    threads: int | None = None,
) -> None:
    """Make a talking-head video of any length: a picture or a video of a person and speech in, a speaking face out.

    Args:
        audio: speech, any file with sound that ffmpeg reads.
        out: mp4 to write; as long as the speech (in whole frames), and marked as synthetic.
        portrait: picture of the person; the whole face is drawn from it.
        video: instead of a portrait, a video of the person whose mouth is to follow the speech (dubbing); all else in it stays
            as it is, at its own resolution and frame rate.
        batch: instead of audio, out and portrait or video, a CSV table with columns of these names, and by choice adapter and
            seed; a line a video. Files that are there already are not made again.
        adapter: a person's name, or an adapter folder; several with weights as anna:0.7,bert:0.3; none uses the backbone alone.
        run: run whose adapters names are looked for in; all runs below runs/ by default.
        backbone: 'shipped' or the folder of the backbone that the adapter was trained on.
        guidance: weight of the audio; above 1 the mouth moves more clearly, at twice the time.
        steps: denoising steps.
        stride: frames between sampling windows of 8 frames; smaller is smoother and slower.
        seed: of the noise.
        scale: factor by which a portrait's frames are enlarged in the video.
        keep_picture: put the speaking face back into the whole portrait, at the portrait's own resolution.
        when_short: where the speech is longer than the video: loop (forth and back), hold (the last picture) or refuse.
        learn_looks: with a video: learn from its first eight seconds how this person's mouth looks (teeth, lips, chin), in
            place of what the adapter knows of it; no training, and nothing is kept.
        mark: draw "AI-generated" into a corner of each frame.
        overwrite: with batch, make files again that are there.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: 32, bf16 or 16.
        finder: face finder: dlib (needs no download), yunet or face-alignment.
        threads: CPU threads; all that torch finds by default.
    """
    if threads:
        torch.set_num_threads(threads)
    order = Order(
        adapter=adapter, run=run, backbone=backbone, guidance=guidance, steps=steps, stride=stride, seed=seed, finder=finder,
        when_short=when_short, learn_looks=learn_looks, keep_picture=keep_picture, device=device, precision=precision,
        scale=scale, mark=mark,
    )  # fmt: skip
    if batch is not None:
        if any(value is not None for value in (audio, out, portrait, video)):
            raise ConfigurationError(
                "generate: --batch TABLE names audio, out, portrait and video itself; leave these out"
            )
        outcome = make_batch(Path(batch), order, overwrite)
        print(outcome)
        if outcome.failed:
            raise MediaError(f"{len(outcome.failed)} of the videos in {batch} could not be made; the reasons are above")
        return
    if audio is None or out is None:
        raise ConfigurationError("generate: give --audio SPEECH and --out VIDEO.mp4, or --batch TABLE.csv")
    print(make_file(audio, out, portrait, video, order))
