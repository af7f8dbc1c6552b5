"""`fedtalk app`: a local page: portrait or video, speech, adapter; a video that plays."""

from __future__ import annotations

import torch

from fedtalk.data.faces import Finder
from fedtalk.talker.backbone import SHIPPED
from fedtalk.talker.production.files import Order
from fedtalk.talker.production.generate import Precision
from fedtalk.talker.production.page import serve
from fedtalk.talker.production.recording import WhenShort


def app(
    run: str | None = None,
    backbone: str = SHIPPED,
    port: int = 7860,
    guidance: float = 1.0,
    steps: int = 1,
    stride: int = 4,
    scale: int = 4,
    when_short: WhenShort = "loop",
    learn_looks: bool = True,
    device: str = "auto",
    precision: Precision = "32",
    finder: Finder = "dlib",
    threads: int | None = None,
) -> None:
    """Open a local page: a picture or a video, speech, a person's adapter; a video that plays. Nothing leaves this machine.

    Args:
        run: run whose adapters can be chosen; those of all runs below runs/ by default.
        backbone: 'shipped' or the folder of the backbone that the adapters were trained on.
        port: on this machine, the only one that is answered.
        guidance: weight of the audio.
        steps: denoising steps that the page begins with.
        stride: frames between sampling windows.
        scale: factor by which a portrait's frames are enlarged.
        when_short: where the speech is longer than the video: loop, hold or refuse.
        learn_looks: learn from the video that is dubbed how this person's mouth looks.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: 32, bf16 or 16.
        finder: face finder: dlib, yunet or face-alignment.
        threads: CPU threads; all that torch finds by default.
    """
    if threads:
        torch.set_num_threads(threads)
    order = Order(
        run=run, backbone=backbone, guidance=guidance, steps=steps, stride=stride, finder=finder, when_short=when_short,
        learn_looks=learn_looks, device=device, precision=precision, scale=scale,
    )  # fmt: skip
    serve(order, port)
