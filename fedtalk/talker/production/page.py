"""The page of `fedtalk app`: a picture or a video of a person, speech, their adapter; a video that plays. All on this machine.

The server listens on this machine alone, there is no share link and no telemetry, and the browser is told to load nothing from
anywhere else. What is uploaded and made lies in a temporary folder that goes when the page is closed down.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedtalk.data.media import read_audio
from fedtalk.data.provenance import Statement, read_provenance
from fedtalk.errors import ArtifactError, ConfigurationError, FedTalkError
from fedtalk.talker.production.files import Order
from fedtalk.talker.production.generate import Ready, generate, load_talker
from fedtalk.talker.production.named_adapters import CONFIG, RUNS

log = logging.getLogger("fedtalk")

HOST = "127.0.0.1"
NOBODY = "none (the backbone alone)"
ONLY_HERE = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; frame-ancestors 'none'"
"""Content-Security-Policy: the browser loads and sends nothing from or to anywhere else, whatever the page's libraries ask."""
DOWNLOAD = ["download"]
"""Named outright: gradio's own choice has a button that shares with a site elsewhere."""
CONSENT = "The person in the picture or video, and the one who speaks, have agreed to this video."
INTRODUCTION = """# fedtalk
A person, some speech: a video in which they say it. Everything stays on this machine. Each video says that it is synthetic, in
its metadata and in a signed C2PA manifest."""


@dataclass(frozen=True)
class Wish:
    """What was filled in."""

    portrait: str | None
    video: str | None
    speech: str | None
    person: str
    agreed: bool
    control: bool
    keep_picture: bool
    mark: bool
    steps: int
    seed: int


class Studio:
    """Makes what the page asks for; keeps the latest person's talker."""

    def __init__(self, order: Order, folder: Path) -> None:
        self.order, self.folder = order, folder
        self._ready: tuple[str, Ready] | None = None
        self._made = 0

    def people(self) -> list[str]:
        """Adapters that can be chosen: names of people in ``order.run``, or in all runs; folders where a name is not enough."""
        roots = [Path(self.order.run)] if self.order.run else sorted(Path(RUNS).glob("*"))
        folders = [path.parent for root in roots for path in sorted((root / "adapters").rglob(CONFIG))]
        names = [folder.name for folder in folders]
        return [NOBODY] + [folder.name if names.count(folder.name) == 1 else str(folder) for folder in folders]

    def make(self, wish: Wish, told: Callable[[float], None]) -> tuple[str, str | None, str]:
        """
        Args:
            wish: what to make.
            told: called with the share that is done.

        Returns:
            the video; the control (the same picture, its mouth after the speech's other half, under the same sound) or None;
            what to say about it.

        Raises:
            ConfigurationError: something is not filled in.
            FedTalkError: as of `generate`.
        """
        if not wish.agreed:
            raise ConfigurationError("tick the box: those shown and heard must have agreed")
        if wish.speech is None:
            raise ConfigurationError("add speech: upload a sound file, or record some")
        if (wish.portrait is None) == (wish.video is None):
            raise ConfigurationError("add either a picture or a video of the person")
        speech = read_audio(wish.speech)
        keep = wish.keep_picture and wish.video is None
        ready = self._talker(wish.person)

        def film(sound: np.ndarray) -> Any:
            order = self.order
            return generate(
                sound, wish.portrait, wish.video, talker=ready, guidance=order.guidance, stride=order.stride,
                finder=order.finder, when_short=order.when_short, precision=order.precision, steps=wish.steps,
                seed=wish.seed, learn_looks=order.learn_looks, keep_picture=keep,
            )  # fmt: skip

        scale = 1 if wish.video is not None or keep else self.order.scale
        own = film(speech)
        parts = 2 if wish.control else 1
        self._made += 1
        made = own.save(
            self.folder / f"video-{self._made}.mp4", scale=scale, mark=wish.mark,
            told=lambda done: told(min(1.0, done / own.frames) / parts),
        )  # fmt: skip
        control = None
        if wish.control:
            other = replace(film(np.roll(speech, len(speech) // 2)), speech=own.speech)
            control = other.save(
                self.folder / f"control-{self._made}.mp4", scale=scale, mark=wish.mark,
                told=lambda done: told((1 + min(1.0, done / own.frames)) / parts),
            )  # fmt: skip
        said = read_provenance(made.path)
        return str(made.path), None if control is None else str(control.path), _summary(made, said)

    def _talker(self, person: str) -> Ready:
        if self._ready is None or self._ready[0] != person:
            self._ready = None
            adapter = None if person == NOBODY else person
            self._ready = person, load_talker(adapter, self.order.run, self.order.backbone, self.order.device)
        return self._ready[1]


def _summary(made: Any, said: Statement) -> str:
    adapters = ", ".join(said.facts["adapters"]) or "none"
    return (
        f"{made.frames} frames, {made.seconds:.2f} s, {made.frames / made.took:.1f} frames a second. "
        f"The file says: {said.kind}, backbone {said.facts['backbone']}, adapter {adapters}; "
        f'signed by "{said.signer}", {said.state.lower()}.'
    )


def build(studio: Studio) -> Any:
    """The page, a ``gradio.Blocks``."""
    gradio = _gradio()

    def make(
        portrait: str | None, video: str | None, speech: str | None, person: str, agreed: bool, control: bool, keep: bool,
        mark: bool, steps: int, seed: int, progress: Any = gradio.Progress(),  # noqa: B008 (gradio looks for it there)
    ) -> tuple[str | None, str | None, str]:  # fmt: skip
        wish = Wish(portrait, video, speech, person, agreed, control, keep, mark, int(steps), int(seed))
        try:
            return studio.make(wish, lambda share: progress(share, desc="drawing"))
        except FedTalkError as error:
            return None, None, f"**Not made:** {error}"

    with gradio.Blocks(title="fedtalk", analytics_enabled=False) as page:
        gradio.Markdown(INTRODUCTION)
        with gradio.Row():
            with gradio.Column(min_width=320):
                with gradio.Tab("Picture"):
                    portrait = gradio.Image(
                        label="Picture of the person", type="filepath", elem_id="portrait", buttons=["fullscreen"]
                    )
                    portrait.preprocess = _as_it_is
                    keep = gradio.Checkbox(label="Keep the whole picture around the face", elem_id="keep")
                with gradio.Tab("Video"):
                    video = gradio.Video(label="Video of the person, to be dubbed", elem_id="video", buttons=[])
                speech = gradio.Audio(
                    label="Speech", sources=["upload", "microphone"], type="filepath", elem_id="speech", buttons=[]
                )
                person = gradio.Dropdown(studio.people(), value=NOBODY, label="Personal adapter", elem_id="person")
                with gradio.Accordion("More", open=False):
                    steps = gradio.Slider(1, 50, studio.order.steps, step=1, label="Denoising steps", elem_id="steps")
                    seed = gradio.Number(studio.order.seed, precision=0, label="Seed", elem_id="seed")
                control = gradio.Checkbox(
                    label="Also show the control: a mouth that follows other speech, under the same sound",
                    elem_id="control",
                )
                mark = gradio.Checkbox(label='Draw "AI-generated" into the picture', elem_id="mark")
                agreed = gradio.Checkbox(label=CONSENT, elem_id="agreed")
                button = gradio.Button("Make the video", variant="primary", elem_id="make")
            with gradio.Column(min_width=320):
                about = gradio.Markdown(elem_id="about")  # above, where it is seen on a telephone too
                result = gradio.Video(label="Result", interactive=False, elem_id="result", buttons=DOWNLOAD)
                shown = gradio.Video(
                    label="Control: swapped speech",
                    interactive=False,
                    elem_id="swapped",
                    buttons=DOWNLOAD,
                    visible=False,
                )
        inputs = [portrait, video, speech, person, agreed, control, keep, mark, steps, seed]
        control.change(lambda wanted: gradio.update(visible=wanted), control, shown, api_visibility="private")
        button.click(make, inputs, [result, shown, about], api_visibility="private")
    return page


def _as_it_is(picture: Any) -> str | None:
    """The file that was uploaded: gradio would make it RGB in its own way, without transparency, and fail without a word."""
    return None if picture is None else picture.path


def serve(order: Order, port: int = 7860) -> None:
    """Serve the page until the process is interrupted.

    Args:
        order: what the page does not ask for.
        port: on this machine.

    Raises:
        ArtifactError: gradio is not installed.
        ConfigurationError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="fedtalk-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        app = local_app(Studio(order, Path(folder)), port)
        import uvicorn

        print(f"fedtalk app: http://{HOST}:{port} on this machine only; Ctrl-C ends it", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="warning"))
        try:
            server.run()
        except SystemExit as error:  # uvicorn has printed why
            raise ConfigurationError(f"app: port {port} can't be used; choose another with --port") from error


def local_app(studio: Studio, port: int) -> Any:
    """The page as an ASGI application that answers this machine's names only and keeps the browser at home."""
    gradio = _gradio()
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI()
    app.add_middleware(_OnlyHere)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    fonts = ["system-ui", "sans-serif"]
    return gradio.mount_gradio_app(
        app, build(studio), path="/", server_name=HOST, server_port=port, footer_links=[], run_history=False, ssr_mode=False,
        allowed_paths=[str(studio.folder)], theme=gradio.themes.Default(font=fonts, font_mono=["monospace"]),
    )  # fmt: skip


class _OnlyHere:
    """Adds `ONLY_HERE` to each answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", ONLY_HERE.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio
    except ImportError as error:
        raise ArtifactError(f"the page needs gradio ({error}); run `pip install 'fedtalk[app]'`") from error
    return gradio
