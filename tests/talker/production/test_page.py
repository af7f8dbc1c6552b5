"""The local page: what it refuses, that it stays on this machine, and a click through it in a real browser."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ready import begin

from fedtalk.cli import main
from fedtalk.data.media import write_audio, write_image
from fedtalk.data.provenance import read_provenance
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ConfigurationError
from fedtalk.talker.production.files import Order
from fedtalk.talker.production.page import HOST, NOBODY, ONLY_HERE, Studio, Wish

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
PATIENCE = 240
"""Seconds that a browser on a busy machine is waited for."""


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
def _browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--window-size=1280,1500"):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="the page needs gradio: pip install 'fedtalk[app]'"
)
@pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="needs selenium: pip install 'fedtalk[test]'")
@pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver (Debian: chromium-driver)"
)
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # selenium leaves its connections to the garbage collector
def test_a_click_through_makes_a_video_that_plays(tiny_backbone: Path, tmp_path: Path) -> None:
    clip = make_clip(Speaker.draw(0, "public", 0), 0, 12, 192)
    write_image(tmp_path / "face.png", clip.frames[0])
    write_audio(tmp_path / "speech.wav", clip.audio)
    with _served(tiny_backbone, tmp_path) as address, _browser() as page:
        _click_through(page, address, tmp_path)
    gc.collect()


def _click_through(page: Any, address: str, folder: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(condition: Callable[[Any], Any]) -> Any:
        return WebDriverWait(page, PATIENCE).until(condition)

    def one(selector: str) -> Any:
        return wait(lambda driver: next(iter(driver.find_elements(By.CSS_SELECTOR, selector)), None))

    page.get(address)
    one("#portrait input[type=file]").send_keys(str(folder / "face.png"))
    one("#portrait img")
    one("#speech input[type=file]").send_keys(str(folder / "speech.wav"))
    wait(lambda driver: not driver.find_elements(By.CSS_SELECTOR, "#speech input[type=file]"))
    page.execute_script("arguments[0].click()", one("#make"))
    wait(lambda driver: "tick the box" in driver.find_element(By.ID, "about").text)
    page.execute_script("arguments[0].click()", one("#agreed input[type=checkbox]"))
    page.execute_script("arguments[0].click()", one("#make"))
    one("#result video")
    wait(lambda driver: driver.execute_script("return document.querySelector('#result video').readyState") >= 2)
    length = page.execute_script("return document.querySelector('#result video').duration")
    assert abs(length - 0.48) < 0.07
    assert "trainedAlgorithmicMedia" in page.find_element(By.ID, "about").text
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded and all(name.startswith((address, "data:", "blob:")) for name in loaded)
    page.save_screenshot(str(folder / "page.png"))
    assert not page.find_elements(By.CSS_SELECTOR, "[aria-label=Share], [title=Share]")
    tabs = page.find_elements(By.CSS_SELECTOR, "button[role=tab]")
    page.execute_script("arguments[0].click()", next(tab for tab in tabs if tab.text.strip() == "Video"))
    wait(lambda driver: driver.find_element(By.CSS_SELECTOR, "#video").is_displayed())
    page.set_window_size(500, 1500)  # the narrowest that a desktop browser's window gets
    wait(lambda driver: driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"))
    page.save_screenshot(str(folder / "phone.png"))
