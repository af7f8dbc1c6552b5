"""A table of videos: what it may say, and that a bad line costs itself alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ready import run_script

from fedtalk.data.media import write_audio, write_image
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ConfigurationError, MediaError
from fedtalk.talker.production.jobs import Job, read_jobs, run_jobs


def _table(folder: Path, text: str) -> Path:
    path = folder / "jobs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_become_jobs_with_paths_beside_the_table(tmp_path: Path) -> None:
    table = _table(
        tmp_path, "\ufeffaudio,out,portrait,video,adapter,seed\na.wav,o/1.mp4,p.png,,anna,7\n/b.wav,2.mp4,,v.mp4,,\n"
    )
    assert read_jobs(table) == [
        Job(2, tmp_path / "a.wav", tmp_path / "o/1.mp4", tmp_path / "p.png", None, "anna", 7),
        Job(3, Path("/b.wav"), tmp_path / "2.mp4", None, tmp_path / "v.mp4", None, None),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no lines"),
        ("audio,out\n", "no lines"),
        ("audio,portrait\na,b\n", "missing: out"),
        ("audio,out,speed\na,b,1\n", "unknown: speed"),
        ("audio,out,portrait\na,,p\n", "line 2: expected audio and out"),
        ("audio,out\na,b\n", "line 2: expected either portrait or video"),
        ("audio,out,portrait,video\na,b,p,v\n", "line 2: expected either portrait or video"),
        ("audio,out,portrait,seed\na,b,p,x\n", "line 2: seed is a whole number, got 'x'"),
        ("audio,out,portrait\na,b,p\nc,b,p\n", "lines 2 and 3 both write"),
        ("audio,out,portrait\na,b,p,extra\n", "unknown"),
        ("audio,out,video\na,./v.mp4,v.mp4\n", "line 2 writes .*v.mp4, which line 2 reads"),
        ("audio,out,video\na,b.mp4,v.mp4\nb,v.mp4,w.mp4\n", "line 3 writes .*v.mp4, which line 2 reads"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_jobs(_table(tmp_path, text))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.csv: can't be read"):
        read_jobs(tmp_path / "none.csv")


def test_one_bad_line_costs_itself_and_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    lines = "".join(f"a.wav,{n}.mp4,p.png,{person}\n" for n, person in enumerate(["anna", "bert", "anna", "bert"]))
    jobs = read_jobs(_table(tmp_path, "audio,out,portrait,adapter\n" + lines))
    order: list[str] = []

    def make(job: Job) -> None:
        if job.out.name == "1.mp4":
            raise MediaError("no face found")
        order.append(job.out.name)
        job.out.touch()

    outcome = run_jobs(jobs, make)
    assert (outcome.made, outcome.there, outcome.failed) == (3, 0, {3: "no face found"})
    assert order == ["0.mp4", "2.mp4", "3.mp4"]  # one adapter after the other
    assert "line 3: no face found" in str(outcome)
    outcome = run_jobs(jobs, make)
    assert (outcome.made, outcome.there, len(outcome.failed)) == (0, 3, 1)
    assert run_jobs(jobs, make, overwrite=True).made == 3


@pytest.mark.timeout(900)
@pytest.mark.parametrize("points", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_batch_that_is_killed_at_any_moment_goes_on_without_doing_again_what_is_done(
    points: int, tmp_path: Path, tiny_backbone: Path
) -> None:
    clip = make_clip(Speaker.draw(0, "public", 0), 0, 8, 192)
    write_image(tmp_path / "face.png", clip.frames[0])
    write_audio(tmp_path / "speech.wav", clip.audio)
    _table(tmp_path, "audio,out,portrait\nspeech.wav,one.mp4,face.png\nspeech.wav,two.mp4,face.png\n")
    program = Path(__file__).parents[2] / "data" / "support" / "killed_batch.py"
    done = run_script(program, str(tmp_path), str(tiny_backbone), str(points), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["problems"] == [] and told["changes"] >= 4
