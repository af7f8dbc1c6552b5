"""The page: self-contained, complete, readable by a browser; what can't be reported is said."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import ClassVar

import cv2
import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from fedtalk.data.video_writer import VideoWriter
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.report.charts import COLOURS, curves_chart, differences_chart
from fedtalk.report.collect import collect, read_curves
from fedtalk.report.command import report
from fedtalk.report.page import write_report

MEASURES = {"psnr": 30.0, "psnr_mouth": 24.0, "mouth_corr": 0.9, "identity": 0.8, "flicker": 1.0}


def _run(folder: Path, seed: int, rounds: int = 3, epsilon: float = 0.0) -> Path:
    """A folder as `fedtalk fit` and `fedtalk test` leave it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"seed_everything: {seed}\nname: '<script>alert(1)</script>'\n")
    generator = np.random.default_rng(seed)
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for step in range(1, rounds + 1):
            writer.add_scalar("train/loss", 1 / step + 0.01 * generator.normal(), step)
            if epsilon:
                writer.add_scalar("privacy/epsilon_prv", 2.0 * step, step)
            writer.add_scalar("client_weight/anna", 0.5, step)
            writer.add_scalar("client_weight/bert", 0.2, step)
    clients = ["anna", "anna-lena", "bert"]
    worth = {"anna": 25.0, "anna-lena": 18.0, "bert": 22.0}
    row = lambda client: {**MEASURES, "psnr_mouth": worth[client]}  # noqa: E731
    names = ("trained", "no_adapter", "personal", "grey", "truth")
    metrics = {
        **dict.fromkeys(names, MEASURES),
        "portrait": {"trained": MEASURES},
        "comparisons": {"personal - trained": {"psnr_mouth": {"mean": 0.5, "low": 0.2, "high": 0.8}}},
        "clips": [{"client": client, "dub": {name: row(client) for name in names}} for client in clients],
        "about": {"clips": 3, "clients": 3, "identity": "sface", "openness": "mouth_probe", "unavailable": {"fid": "no weights"},
                  "fewer_clips": {"personal": 2}},
        "privacy": [
            {"against": "against whoever has the adapters", "adjacency": "", "prv": epsilon, "rdp": 1.5 * epsilon},
            {"against": "against the server", "adjacency": "", "exact": None},
        ] if epsilon else [],
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    frames = generator.integers(0, 255, (25, 32, 32, 3), np.uint8)
    for client in clients:
        path = folder / "videos" / f"{client}-truth-left-dubbed-right.mp4"
        with VideoWriter(path, audio=0.1 * generator.standard_normal(25 * 640).astype(np.float32)) as writer:
            for frame in frames:
                writer.write(frame)
    return folder


class _Links(HTMLParser):
    """Everything that a page would fetch, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def _read(page: Path) -> tuple[str, _Links]:
    text = page.read_text(encoding="utf-8")
    links = _Links()
    links.feed(text)
    return text, links


def test_a_page_is_one_file_with_everything_in_it(tmp_path: Path) -> None:
    page = write_report([_run(tmp_path / "isfa", 0, epsilon=2.5)], tmp_path / "out" / "page.html")
    text, links = _read(page)
    assert all(link.startswith(("data:", "#")) for link in links.fetched), "nothing is fetched from elsewhere"
    assert links.tags.count("video") == 3 and "script" not in links.tags
    assert links.tags.count("svg") == 3 + 3, "clients' curves in one chart, however many they are"
    assert "fid was not measured: no weights" in text
    assert "<b><span>+0.500</span> <span>[+0.200, +0.800]</span></b>" in text
    assert "epsilon prv" in text and ">6<" in text, "the last round's epsilon"
    order = re.findall(r"<figcaption>(\S+): truth left", text)
    assert order == ["anna-lena", "bert", "anna"], "worst clients first, and anna-lena is not anna"
    worst = text[text.index("<h3>Worst clips</h3>") : text.index("Spread over clients")]
    assert re.findall(r'<th scope="row">(\S+)</th>', worst) == ["anna-lena", "bert", "anna"]
    assert "personal (2 of 3 clips)" in text and "psnr mouth, dB ↑" in text and "seed 0" in text


def test_privacy_is_by_adversary_and_its_absence_is_said(tmp_path: Path) -> None:
    private = _run(tmp_path / "private", 0, epsilon=2.5)
    (private / "audit").mkdir()
    (private / "audit" / "audit.json").write_text(
        json.dumps({"epsilon_lower_bound": 0.25, "membership": {"epsilon": 0.125}, "verdict": "consistent"})
    )
    text, _ = _read(write_report([private, _run(tmp_path / "open", 1)], tmp_path / "page.html", videos=0))
    privacy = re.sub(r"<[^>]+>", " ", text[text.index('<h2 id="privacy">') : text.index('<h2 id="run-1')])
    assert re.search(r"whoever has the adapters\s+2.5 PRV\s+3.75 RDP", privacy), privacy
    assert re.search(r"against the server\s+no bound exact", privacy)
    assert re.search(r"canaries: epsilon at least\s+0.250", privacy) and "consistent" in privacy
    assert "open: no noise is added" in privacy and "private: no noise" not in privacy


def test_several_runs_share_their_charts(tmp_path: Path) -> None:
    folders = [_run(tmp_path / name / "run", seed) for seed, name in enumerate(("one", "two"))]
    text, links = _read(write_report(folders, tmp_path / "page.html", videos=1))
    assert "one/run" in text and "two/run" in text and links.tags.count("video") == 2
    assert len(re.findall(r"<h2 id=.run-", text)) == 2


def test_a_sweep_averages_its_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = _run(tmp_path / "runs" / f"base-{seed}", seed)
        cv2.imwrite(str(run / "contact_sheet.png"), np.full((40, 3200, 3), 90, np.uint8))
    estimate = {"mean": 24.0, "low": 23.0, "high": 25.0, "seeds": 2}
    measures = {"personal.psnr_mouth": estimate, "grey.psnr_mouth": {**estimate, "mean": 14.0}}
    better = {**estimate, "mean": 1.5, "low": 1.0, "high": 2.0, "p_value": 0.01, "excludes_zero": True}
    summary: dict = {
        "about": {"configs": ["isfa.yaml"], "seeds": [0, 1], "vary": ["a=1,2"], "threads": 1, "code": "abc", "torch": "2",
                  "date": "2026-01-01"},
        "variations": {
            "base": {"arguments": [], "measures": measures},
            "a=2": {"arguments": ["--a=2"], "measures": {"personal.psnr_mouth": {**estimate, "against_first": better}}},
        },
        "runs": [{"variation": "base", "seed": s, "key": "k", "folder": f"base-{s}", "seconds": 1.0, "measures": {}}
                 for s in (0, 1)],
        "failed": [{"variation": "a=2", "seed": 1, "folder": "x", "reason": "no <memory>"}],
    }  # fmt: skip
    (tmp_path / "sweep.json").write_text(json.dumps(summary))
    text, links = _read(write_report([tmp_path], tmp_path / "page.html"))
    assert links.tags.count("video") == 3 and links.tags.count("img") == 1, (
        "pictures of the first run of a variation alone"
    )
    (sheet,) = (link for link in links.fetched if link.startswith("data:image/jpeg;base64,"))
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(sheet.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (20, 1600, 3) and abs(int(shown.mean()) - 90) <= 1
    assert text.index("<h3>What differs</h3>") < text.index("all measures: personal") < text.index("base, seed 0")
    assert "personal: psnr mouth" in text and '<tr class="control"><th scope="row">psnr mouth' in text
    assert "<b><span>+1.500</span> <span>[+1.000, +2.000]</span> <span>p=0.01</span></b>" in text
    assert (
        text.index("Differences at a glance")
        < text.index("personal: psnr mouth ↑, less base")
        < text.index("What differs")
    )
    assert "<span>24.000</span> <span>[23.000, 25.000]</span>" in text and "a=2 (0 of 2 seeds)" in text
    assert "Not finished" not in text and "in the tables, but not below" not in text
    assert "no &lt;memory&gt;" in text
    with pytest.raises(ArtifactError, match="page of its own"):
        collect([tmp_path, tmp_path / "runs" / "base-0"])
    # What goes on in the same folder comes first; a run whose folder is gone costs its own section alone.
    (tmp_path / "unfinished.json").write_text(json.dumps(summary | {"pending": 2}))
    shutil.rmtree(tmp_path / "runs" / "base-1")
    text, _ = _read(write_report([tmp_path], tmp_path / "page.html"))
    assert "Not finished: 2 more runs" in text and "in the tables, but not below: base, seed 1" in text


def test_curves_of_a_resumed_run_take_the_later_value(tmp_path: Path) -> None:
    for value, steps in ((1.0, (1, 2)), (5.0, (2, 3))):
        with SummaryWriter(str(tmp_path)) as writer:
            for step in steps:
                writer.add_scalar("x", value, step)
    files = sorted(tmp_path.glob("events.*"), key=lambda path: path.stat().st_mtime)
    assert len(files) == 2
    assert read_curves(tmp_path) == {"x": {1: 1.0, 2: 5.0, 3: 5.0}}


def test_a_difference_is_a_full_dot_where_its_interval_excludes_0_and_is_drawn_without_one() -> None:
    def full(found: dict) -> bool:
        svg = differences_chart("psnr mouth", "dB", {"isfa": found})
        assert "isfa" in svg and "psnr mouth" in svg
        dot = svg[svg.index('id="line2d_', svg.index('id="line2d_3')) :]
        return f"fill: {COLOURS[0]}" in dot

    assert full({"mean": 0.2, "low": 0.1, "high": 0.3}) and full({"mean": -0.2, "low": -0.3, "high": -0.1})
    assert not full({"mean": 0.2, "low": -0.1, "high": 0.5}) and not full({"mean": 0.2, "low": None, "high": None})


def test_the_same_curves_give_the_same_picture() -> None:
    curves = {"a": [{1: 0.1, 2: 0.2}, {1: 0.3, 2: 0.1}], "b": [{1: 0.2}]}
    assert curves_chart("loss", curves) == curves_chart("loss", curves)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: [], "at least one"),
        (lambda p: [p / "nowhere"], "is no folder"),
        (lambda p: [p], "holds none of"),
        (lambda p: [(p / "runs" / "a").mkdir(parents=True) or p], "no finished run yet"),
        (lambda p: [_run(p / "a", 0), p / "a"], "each folder once"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        collect(make(tmp_path))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", 0)
    (run / "metrics.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"metrics\.json can't be read"):
        collect([run])


def test_a_run_that_was_not_measured_has_its_curves(tmp_path: Path) -> None:
    run = _run(tmp_path / "a", 0)
    (run / "metrics.json").unlink()
    text, links = _read(write_report([run], tmp_path / "page.html"))
    assert "Not measured yet" in text and links.tags.count("svg") == 2 and links.tags.count("video") == 3
    with pytest.raises(ConfigurationError, match="--videos of 0 or more"):
        report([str(run), "--videos", "-1"])


class _Told(SimpleHTTPRequestHandler):
    """Serves the page, and hears from it what a browser made of it."""

    heard: ClassVar[Queue[str]] = Queue()

    def do_POST(self) -> None:
        self.heard.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


PROBE = """
<iframe id=f width=WIDTH height=800 src=page.html></iframe><script>onload = async () => {
  const page = document.getElementById('f').contentDocument, videos = [...page.querySelectorAll('video')];
  const plays = video => new Promise(done => {
    setTimeout(() => done('not to its end'), 30000);
    video.onended = () => done(video.webkitVideoDecodedByteCount > 0 && video.webkitAudioDecodedByteCount > 0 ? '' : 'silent');
    video.play().catch(error => done(error.message));
  });
  const said = [];
  for (const video of videos) said.push(await plays(video));
  await fetch('/', {method: 'POST', body: JSON.stringify({width: page.documentElement.scrollWidth, said})});
}</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's package chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_plays_every_video_with_sound_and_finds_nothing_to_complain_about(tmp_path: Path, width: int) -> None:
    write_report([_run(tmp_path / "isfa", 0, epsilon=2.5)], tmp_path / "page.html")
    # A frame of the wanted width: headless windows have a least width of their own.
    (tmp_path / "probe.html").write_text(PROBE.replace("WIDTH", str(width)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Told, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with (tmp_path / "said").open("wb") as said:
        browser = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
             "--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}",
             f"http://127.0.0.1:{server.server_port}/probe.html"],
            stdout=said, stderr=said,
        )  # fmt: skip
        try:
            found = json.loads(_Told.heard.get(timeout=240))
        finally:
            browser.terminate()
            browser.wait(60)
            server.shutdown()
            server.server_close()
    complaints = [line for line in (tmp_path / "said").read_text(errors="replace").splitlines() if ":CONSOLE" in line]
    assert not complaints, complaints
    assert found["width"] <= width, "the page scrolls sideways"
    assert found["said"] == ["", "", ""], "all videos play to their ends, with sound"
