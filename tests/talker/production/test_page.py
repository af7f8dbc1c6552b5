"""The local page: what it refuses, that it stays on this machine, and a click through it in a real browser."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ready import begin

from fedtalk.cli import main
from fedtalk.data.media import write_audio, write_image
from fedtalk.data.provenance import read_provenance
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.talker.production.files import Order
from fedtalk.talker.production.page import HOST, NOBODY, ONLY_HERE, Studio, Wish

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
PATIENCE = 240
"""Seconds that a browser on a busy machine is waited for."""
CUT_OFF = """return [...document.querySelectorAll('*')].filter(
    one => one.getBoundingClientRect().width && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML)"""
"""Whatever reaches beyond the right border of the window."""


@pytest.fixture
def inputs(tmp_path: Path, picture: Callable, speech: Callable) -> tuple[str, str]:
    write_image(tmp_path / "face.png", picture(0))
    write_audio(tmp_path / "speech.wav", speech(0.48))
    return str(tmp_path / "face.png"), str(tmp_path / "speech.wav")


@pytest.fixture
def studio(tmp_path: Path, tiny_backbone: Path, finder: object, monkeypatch: pytest.MonkeyPatch) -> Studio:
    folder = tmp_path / "made"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    order = Order(backbone=str(tiny_backbone), guidance=1.0, steps=2, stride=8, scale=2, device="cpu")
    return Studio(order, folder)


def _wish(portrait: str | None, speech: str | None) -> Wish:
    return Wish(portrait, None, speech, NOBODY, True, False, False, False, 2, 0)


def test_nothing_is_made_without_consent_speech_and_a_person(studio: Studio, inputs: tuple[str, str]) -> None:
    portrait, speech = inputs
    good = _wish(portrait, speech)
    for wish, said in (
        (replace(good, agreed=False), "tick the box"),
        (replace(good, speech=None), "add speech"),
        (replace(good, portrait=None), "either a picture or a video"),
        (replace(good, video="a.mp4"), "either a picture or a video"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            studio.make(wish, lambda _: None)
    assert not list(studio.folder.iterdir())


def test_the_control_has_the_same_sound_and_another_mouth(studio: Studio, inputs: tuple[str, str]) -> None:
    from fedtalk.data.media import read_audio, read_video

    shares: list[float] = []
    own, control, about = studio.make(replace(_wish(*inputs), control=True, mark=True), shares.append)
    assert control is not None and shares == sorted(shares) and shares[-1] == 1.0
    assert np.array_equal(read_audio(own), read_audio(control))
    pairs = list(zip(read_video(own), read_video(control), strict=True))
    assert len(pairs) == 12 and any(not np.array_equal(*pair) for pair in pairs)
    for path in (own, control):
        assert read_provenance(Path(path)).kind == "trainedAlgorithmicMedia"
    assert "trainedAlgorithmicMedia" in about and "adapter none" in about


def test_a_telephones_picture_is_read_and_what_that_needs_is_said(
    studio: Studio, inputs: tuple[str, str], picture: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pip install 'fedtalk[heic]'")
    heif.from_pillow(Image.fromarray(picture(0))).save(tmp_path / "face.heic", quality=-1, chroma=444)
    wish = _wish(str(tmp_path / "face.heic"), inputs[1])
    assert Path(studio.make(wish, lambda _: None)[0]).is_file()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ArtifactError, match=r'face.heic is HEIC.*pip install "fedtalk\[heic\]"'):
        studio.make(wish, lambda _: None)


@contextlib.contextmanager
def _served(backbone: Path, folder: Path) -> Iterator[str]:
    """`fedtalk app` in a process of its own, so that what its libraries leave open is gone with it."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = ["app", "--backbone", str(backbone), "--port", str(port), "--guidance", "1",
               "--steps", "2", "--stride", "8", "--scale", "2", "--device", "cpu", "--threads", "1"]  # fmt: skip
    address = f"http://{HOST}:{port}"
    server = begin(main, command, log=folder / "app.log", folder=folder)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(address) as answer:
                    assert answer.headers["content-security-policy"] == ONLY_HERE
                break
            except urllib.error.URLError:
                assert server.is_alive() and time.monotonic() < deadline, (folder / "app.log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.join(PATIENCE)


@contextlib.contextmanager
def _browser(*flags: str) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--window-size=1280,1500", *flags):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def _in_a_browser(test: Callable) -> Callable:
    """A test that needs the page's and the browser's packages; selenium leaves its connections to the garbage collector."""
    for condition, reason in (
        (importlib.util.find_spec("gradio") is None, "the page needs gradio: pip install 'fedtalk[app]'"),
        (importlib.util.find_spec("selenium") is None, "needs selenium: pip install 'fedtalk[test]'"),
        (BROWSER is None or DRIVER is None, "needs chromium and chromedriver (Debian: chromium-driver)"),
    ):
        test = pytest.mark.skipif(condition, reason=reason)(test)
    return pytest.mark.timeout(900)(pytest.mark.filterwarnings("ignore::ResourceWarning")(test))


@_in_a_browser
def test_a_click_through_makes_a_video_that_plays(tiny_backbone: Path, make_talker: Callable, tmp_path: Path) -> None:
    make_talker().save_adapter(tmp_path / "runs" / "demo" / "adapters" / "anna")
    clip = make_clip(Speaker.draw(0, "public", 0), 0, 12, 192)
    write_image(tmp_path / "face.png", clip.frames[0])
    write_audio(tmp_path / "speech.wav", clip.audio)
    with _served(tiny_backbone, tmp_path) as address, _browser() as driver:
        page = _Page(driver, address)
        page.one("#portrait input[type=file]").send_keys(str(tmp_path / "face.png"))
        page.one("#portrait img")
        page.one("#speech input[type=file]").send_keys(str(tmp_path / "speech.wav"))
        page.wait(lambda: not page.all("#speech input[type=file]"))
        page.one("#person input").click()
        names = page.wait(lambda: page.all("#person [role=option], ul[role=listbox] li"))
        assert [name.text.split("\n")[-1].strip() for name in names] == [NOBODY, "anna"]
        names[1].click()
        page.press("#make")
        page.wait(lambda: "tick the box" in page.about)
        assert not page.all("#swapped")
        page.press("#agreed input[type=checkbox]")
        page.press("#make")
        assert abs(page.length_of_the_result() - 0.48) < 0.07
        assert "trainedAlgorithmicMedia" in page.about and "adapter anna" in page.about
        page.press("#control input[type=checkbox]")
        page.one("#swapped")
        loaded = page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert loaded and all(name.startswith((address, "data:", "blob:")) for name in loaded)
        assert not page.all("[aria-label=Share], [title=Share]")
        page.narrow(390, 844)
        for tab in page.all("button[role=tab]"):
            page.run("arguments[0].click()", tab)
            page.wait(lambda: page.run("return document.documentElement.scrollWidth <= window.innerWidth"))
            assert not page.run(CUT_OFF)
        driver.save_screenshot(str(tmp_path / "phone.png"))
    gc.collect()


@pytest.mark.slow
@_in_a_browser
def test_speech_from_the_microphone_and_a_picture_that_cant_be_read(tiny_backbone: Path, tmp_path: Path) -> None:
    """The browser's own stand-in for a microphone plays a file for ever."""
    clip = make_clip(Speaker.draw(0, "public", 0), 0, 25, 192)
    write_image(tmp_path / "face.png", clip.frames[0])
    write_audio(tmp_path / "microphone.wav", clip.audio)
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
             f"--use-file-for-fake-audio-capture={tmp_path / 'microphone.wav'}")  # fmt: skip
    with _served(tiny_backbone, tmp_path) as address, _browser(*flags) as driver:
        page = _Page(driver, address)
        (tmp_path / "face.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))  # cut short
        page.one("#portrait input[type=file]").send_keys(str(tmp_path / "face.heic"))
        page.press("#speech button[aria-label='Record audio']")
        page.press_text("#speech button", "Record")
        time.sleep(2)
        page.press_text("#speech button", "Stop")
        page.one("#speech button[aria-label=Play]")
        page.press("#agreed input[type=checkbox]")
        page.press("#make")
        page.wait(lambda: "face.heic can't be read" in page.about)
        page.press("#portrait button[aria-label='Remove Image'], #portrait button[aria-label='Clear']")
        page.one("#portrait input[type=file]").send_keys(str(tmp_path / "face.png"))
        page.one("#portrait img")
        page.press("#make")
        assert page.length_of_the_result() > 1
        assert "trainedAlgorithmicMedia" in page.about
    gc.collect()


class _Page:
    """The page in a browser."""

    def __init__(self, driver: Any, address: str) -> None:
        self._driver = driver
        self.run = driver.execute_script
        driver.get(address)

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self._driver, PATIENCE).until(lambda _: condition())

    def all(self, selector: str) -> list[Any]:
        return [one for one in self._driver.find_elements("css selector", selector) if one.is_enabled()]

    def one(self, selector: str) -> Any:
        return self.wait(lambda: next(iter(self.all(selector)), None))

    def press(self, selector: str) -> None:
        self.run("arguments[0].click()", self.one(selector))

    def press_text(self, selector: str, text: str) -> None:
        named = lambda: next((one for one in self.all(selector) if one.text.strip() == text), None)  # noqa: E731
        self.run("arguments[0].click()", self.wait(named))

    @property
    def about(self) -> str:
        """What is said of the result."""
        return self._driver.find_element("id", "about").text

    def length_of_the_result(self) -> float:
        """Seconds of the video, once the browser can play it."""
        self.one("#result video")
        self.wait(lambda: self.run("return document.querySelector('#result video').readyState") >= 2)
        return float(self.run("return document.querySelector('#result video').duration"))

    def narrow(self, width: int, height: int) -> None:
        """As on a telephone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
