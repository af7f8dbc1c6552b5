"""The command line from end to end: a tiny fit that is stopped, resumed, measured and used; errors in one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from ready import begin

import fedtalk
from fedtalk.cli import main
from fedtalk.commands import COMMANDS
from fedtalk.training.placement import Placement


def _config(backbone: Path, folder: Path, **trainer: object) -> Path:
    """Two clients with one clip each, at 32 px; SynthTalk, ISFA, personal adapters, all monitors."""
    config = {
        "model": {
            "class_path": "fedtalk.talker.module.Talker",
            "init_args": {
                "backbone": str(backbone), "adapter": {"rank": 2, "alpha": 4.0}, "window": 4, "stride": 4,
                "sampling_steps": 2,
            },
        },
        "data": {
            "class_path": "fedtalk.data.synthtalk_data.SynthTalkData",
            "init_args": {"speakers": 2, "clips": 1, "held_out": 1, "frames": 12, "size": 32},
        },
        "trainer": {
            "rounds": 3, "validate_every": 2, "accelerator": "cpu", "threads": 1, "default_root_dir": str(folder),
            "cache_dir": str(folder.parent / "cache"), "local": {"steps": 2, "batch_size": 2},
            "cohort": {"class_path": "fedtalk.federation.cohort.PoissonCohort", "init_args": {"rate": 1.0}},
            "evaluation": {"clips": 1, "portrait": False, "videos": 1}, "personal": {"steps": 2},
            "aggregation": {"class_path": "ISFA", "init_args": {"gamma": 1.0}}, "videos": {"clients": 1, "frames": 5}, **trainer,
        },
    }  # fmt: skip
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def finished(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of three rounds."""
    folder = tmp_path_factory.mktemp("cli") / "through"
    assert main(["fit", "--config", str(_config(tiny_backbone, folder))]) == 0
    return folder


def test_a_fit_leaves_checkpoint_config_log_and_adapters(finished: Path) -> None:
    assert _checkpoint(finished)["round"] == 3
    assert sorted(path.name for path in (finished / "adapters").iterdir()) == ["personal", "released"]
    personal = finished / "adapters" / "personal"
    assert sorted(path.name for path in personal.iterdir()) == ["private-0000", "private-0001"]
    for folder in (finished / "adapters" / "released", *personal.iterdir()):
        assert {"adapter_config.json", "adapter_model.safetensors", "fedtalk.json"} <= {
            p.name for p in folder.iterdir()
        }
    assert list((finished / "tensorboard").glob("events*"))


def test_the_saved_config_runs_the_run_again(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    saved = str(finished / "config.yaml")
    changed = ["--trainer.default_root_dir", str(again), "--trainer.rounds", "3", "--overwrite"]
    assert main(["fit", "--config", saved, *changed]) == 0
    one, other = _checkpoint(finished)["server"]["state"], _checkpoint(again)["server"]["state"]
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Whoever names it again doesn't mean to lose the run, and may ask for something else.
    assert main(["fit", "--config", str(again / "config.yaml")]) == 1
    assert main(["validate", "--config", str(again / "config.yaml"), "--ckpt_path", "last"]) == 0


def test_stopped_and_resumed_is_the_uninterrupted_run(
    finished: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedtalk.callbacks.progress import RoundProgress

    folder = tmp_path / "killed"
    config = str(_config(tiny_backbone, folder))

    def interrupt(self: object, trainer: object, module: object, outcome: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RoundProgress, "on_round_end", interrupt)
        assert main(["fit", "--config", config]) == 130
    assert _checkpoint(folder)["round"] == 1
    assert main(["fit", "--config", config, "--ckpt_path", "last"]) == 0
    one, other = _checkpoint(finished), _checkpoint(folder)
    assert one["round"] == other["round"] == 3
    for name, value in one["server"]["state"].items():
        assert torch.equal(value, other["server"]["state"][name])
        assert value.abs().max() > 0 or "motion_modules" in name
    for client in ("released", "personal/private-0000", "personal/private-0001"):
        files = [run / "adapters" / client / "adapter_model.safetensors" for run in (finished, folder)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_sigterm_ends_the_command_with_how_to_go_on(
    finished: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fedtalk.callbacks.progress import RoundProgress

    folder = tmp_path / "stopped"
    config = str(_config(tiny_backbone, folder))

    def terminate(self: object, trainer: object, client: str, step: int, steps: int, losses: object) -> None:
        if client == "private-0001":
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RoundProgress, "on_local_step", terminate)
        assert main(["fit", "--config", config]) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; what is done is kept, go on with the same command and --ckpt_path last" in (
        capsys.readouterr().err
    )
    assert main(["fit", "--config", config, "--ckpt_path", "last"]) == 0
    one, other = _checkpoint(finished)["server"]["state"], _checkpoint(folder)["server"]["state"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_disk_that_fills_up_under_a_log_is_one_line(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logs are not ours to write atomically; the checkpoint of the round is there by then."""
    from fedtalk.callbacks.monitor import RoundMonitor

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "full"
    monkeypatch.setattr(RoundMonitor, "_log", full)
    assert main(["fit", "--config", str(_config(tiny_backbone, folder))]) == 1
    error = capsys.readouterr().err
    assert "No space left on device; files written before are whole" in error and "Traceback" not in error
    assert _checkpoint(folder)["round"] == 1


def test_kill_9_at_any_instant_costs_the_round_under_way_at_most(
    finished: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    """A process of its own, killed as soon as its first checkpoint is there."""
    folder = tmp_path / "killed"
    config, last = str(_config(tiny_backbone, folder)), folder / "checkpoints" / "last.ckpt"
    process = begin(main, ["fit", "--config", config], log=tmp_path / "log.txt")
    try:
        while not last.exists() and process.is_alive():
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 1 <= _checkpoint(folder)["round"] < 3
    assert main(["fit", "--config", config, "--ckpt_path", "last"]) == 0
    one, other = _checkpoint(finished)["server"]["state"], _checkpoint(folder)["server"]["state"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_dry_run_says_what_the_run_will_take_and_writes_nothing(
    finished: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedtalk.planning.trials._alternatives", lambda *_: [Placement(together=4)])
    folder = tmp_path / "planned"
    assert main(["fit", "--config", str(_config(tiny_backbone, folder)), "--dry_run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    summary = json.loads(printed[-1])
    state = _checkpoint(finished)["server"]["state"]
    assert summary["costs"]["exchanged"] == sum(value.numel() for value in state.values())
    assert summary["plan"] == {"rounds": 3, "steps": 2, "cohort": 2.0, "drawn": 2.0, "validations": 2, "validated": 2,
                               "personal": 2, "personal_steps": 2}  # fmt: skip
    assert summary["seconds"] > 0 and any(line.startswith("whole run") for line in printed)
    assert not folder.exists()


def test_validate_measures_the_checkpoint(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def loss(*more: str) -> float:
        assert main(["validate", "--config", str(finished.parent / "through.yaml"), *more]) == 0
        lines = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
        return float(lines["loss"])

    assert loss("--ckpt_path", "last") != loss()


def test_test_writes_the_table_with_its_controls(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--config", str(finished.parent / "through.yaml"), "--ckpt_path", "last"]) == 0
    table = json.loads((finished / "metrics.json").read_text())
    rows = {"trained", "personal", "no_adapter", "copy_reference", "grey", "swapped_audio"}
    assert rows <= set(table)
    for row in rows:
        assert {"psnr", "ssim", "psnr_mouth", "mouth_corr", "identity", "flicker"} <= set(table[row])
    assert "mouth_corr_donor" in table["swapped_audio"]
    assert table["truth"]["psnr"] == 100 and table["truth"]["flicker"] == 1
    assert table["copy_reference"]["flicker"] == table["grey"]["flicker"] == 0
    assert table["grey"]["mouth_corr"] == 0
    assert (finished / "contact_sheet.png").stat().st_size > 1000
    worst = min(table["clips"], key=lambda clip: clip["dub"]["personal"]["psnr_mouth"])["client"]
    shown = {path.name for path in (finished / "videos").glob("*.mp4")}
    assert shown == {f"{worst}-truth-left-dubbed-right.mp4", f"{worst}-speaking-for-another.mp4"}
    assert "metrics, contact sheet and videos are in" in capsys.readouterr().out


def test_test_without_videos_writes_the_table_alone(finished: Path, tmp_path: Path) -> None:
    """And a client without a personal adapter has no place in that row, rather than the next client's."""
    folder, shown = tmp_path / "quiet", ("metrics.json", "contact_sheet.png", "videos")
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(*shown))
    config = str(finished.parent / "through.yaml")
    shutil.rmtree(folder / "adapters" / "personal" / "private-0000")
    quiet = [f"--trainer.default_root_dir={folder}", "--trainer.evaluation.videos=0"]
    assert main(["test", "--config", config, "--ckpt_path", "last", *quiet]) == 0
    table = json.loads((folder / "metrics.json").read_text())
    first, second = table["clips"]
    assert table["trained"]["psnr"] > 0 and table["about"]["fewer_clips"] == {"personal": 1}
    assert "personal" not in first["dub"] and second["dub"]["personal"]["psnr"] == pytest.approx(
        table["personal"]["psnr"]
    )
    assert "trained - no_adapter" in table["comparisons"] and "personal - trained" not in table["comparisons"]
    assert [name for name in shown if (folder / name).exists()] == ["metrics.json"]


def test_predict_writes_a_video_a_client_with_sound(finished: Path) -> None:
    from fedtalk.data.media import read_audio, read_video
    from fedtalk.data.provenance import read_provenance

    assert main(["predict", "--config", str(finished.parent / "through.yaml"), "--ckpt_path", "last"]) == 0
    videos = sorted((finished / "predictions").glob("*.mp4"))
    assert [path.stem for path in videos] == ["private-0000", "private-0001"]
    for path in videos:
        assert len(list(read_video(path))) == 12
        assert read_provenance(path).facts["adapters"] == {path.stem: 1.0}
        assert abs(len(read_audio(path)) - 12 * 640) <= 640


def test_generate_makes_a_video_as_long_as_the_speech(
    finished: Path, tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A drawn face at 192 px as the portrait, an odd number of frames, the personal adapter by name; one and a table."""
    import cv2
    from scipy.io import wavfile

    from fedtalk.data.media import read_video
    from fedtalk.data.provenance import read_provenance
    from fedtalk.data.synthtalk import Speaker, make_clip

    clip = make_clip(Speaker.draw(0, "public", 0), 0, 13, 192)
    cv2.imwrite(str(tmp_path / "face.png"), cv2.cvtColor(clip.frames[0], cv2.COLOR_RGB2BGR))
    wavfile.write(tmp_path / "speech.wav", 16_000, (clip.audio * 32767).astype("int16"))
    arguments = [
        "generate", "--portrait", str(tmp_path / "face.png"), "--audio", str(tmp_path / "speech.wav"), "--out",
        str(tmp_path / "talk.mp4"), "--backbone", str(tiny_backbone), "--run", str(finished),
        "--adapter", "private-0000", "--steps", "2", "--scale", "2", "--threads", "1", "--mark",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "13 frames, 0.52 s" in capsys.readouterr().out
    assert len(list(read_video(tmp_path / "talk.mp4"))) == 13
    assert read_provenance(tmp_path / "talk.mp4").facts["adapters"] == {"private-0000": 1.0}
    (tmp_path / "jobs.csv").write_text("audio,out,portrait\nspeech.wav,one.mp4,face.png\nnone.wav,two.mp4,face.png\n")
    several = ["generate", "--batch", str(tmp_path / "jobs.csv"), *arguments[7:]]
    assert main(several) == 1  # its second line has no speech
    told = capsys.readouterr()
    assert "1 videos made, 0 there already, 1 failed" in told.out and "1 of the videos in" in told.err
    assert len(list(read_video(tmp_path / "one.mp4"))) == 13 and not (tmp_path / "two.mp4").exists()


def _changed(tiny_backbone: Path, tmp_path: Path, *path_and_value: object) -> str:
    """The tiny config with one value replaced."""
    source = _config(tiny_backbone, tmp_path / "wrong")
    config = yaml.safe_load(source.read_text())
    *path, last, value = path_and_value
    part = config
    for name in path:
        part = part[name]
    part[last] = value
    source.write_text(yaml.safe_dump(config))
    return str(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("model", "init_args", "adapter", "rank", 0), "adapter.rank: expected a whole number of at least 1, got 0"),
        (("model", "init_args", "adapter", "aggregation", "flora"), "adapter.aggregation"),
        (("model", "init_args", "backbone", "/no/backbone"), "backbone /no/backbone can't be read"),
        (("model", "init_args", "window", 99), "model.window"),
        (("data", "init_args", "frames", 3), "data.frames: expected at least 8, got 3"),
        (("trainer", "local", "steps", 0), "local.steps"),
        (("trainer", "minimum_clients", 0), "trainer.minimum_clients"),
        (("trainer", "cohort", "init_args", "rate", 2.0), "cohort.rate"),
        (("trainer", "aggregation", "init_args", "gamma", -1.0), "aggregation.gamma"),
    ],
)
def test_a_wrong_value_fails_before_any_work_and_names_its_key(
    change: tuple, message: str, tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["fit", "--config", _changed(tiny_backbone, tmp_path, *change)])
    except SystemExit as ended:  # the parser's own way out
        code = ended.code  # type: ignore[assignment]
    assert code not in (0, None)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and "Union" not in error
    assert not (tmp_path / "wrong" / "checkpoints").exists() and not (tmp_path / "cache").exists()


def test_errors_are_one_line_and_no_traceback(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(finished.parent / "through.yaml")
    cases = [
        (["fit", "--config", config, "--ckpt_path", str(tmp_path / "none.ckpt")], "none.ckpt: no such file"),
        (["test", "--config", config, "--trainer.default_root_dir", str(tmp_path / "empty"), "--ckpt_path", "last"],
         "holds no checkpoint yet; run `fedtalk fit` first"),
        (["generate", "--audio", "a.wav", "--out", "o.mp4"], "give either --portrait PICTURE or --video VIDEO"),
        (["generate", "--audio", "a.wav"], "give --audio SPEECH and --out VIDEO.mp4, or --batch TABLE.csv"),
        (["generate", "--audio", "a.wav", "--out", "o.avi", "--portrait", "p.png"], "--out expects a name that ends in .mp4"),
        (["generate", "--audio", "a.wav", "--batch", "t.csv"], "leave these out"),
        (["fit", "--config", config], "holds a run already, and beginning anew would replace its checkpoint and adapters"),
        (["fit", "--config", config, "--ckpt_path", "last", "--model.init_args.adapter.alpha", "8"],
         "model.adapter.alpha 4.0 in the checkpoint, 8.0 in this run"),
        (["fit", "--config", config, "--seed_everything", "true"], "seed_everything: expected a number"),
    ]  # fmt: skip
    saved = (finished / "config.yaml").read_bytes()
    for arguments, message in cases:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert (finished / "config.yaml").read_bytes() == saved  # whoever was refused has not taken the run's place


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.round", "3"], "Did you mean --trainer.rounds?"),
        (["--trainer.accelerator", "tpuu"], "one of ['auto', 'cpu', 'cuda', 'gpu']. Got value: tpuu"),
        (["--optimizer", "torch.optim.SGD"], "unrecognized arguments: --optimizer"),
        (
            ["--trainer.default_placement.kind", "fspd"],
            "\"trainer.default_placement.kind\": Expected one of ['single', 'ddp', 'fsdp']. Got value: fspd",
        ),
        (["--trainer.default_placement.precision", "16"], "Expected one of ['32-true', 'bf16-mixed']. Got value: 16"),
        (
            ["--model.adapter", "{aggregation: flora}"],
            "adapter.aggregation\": Expected one of ['factors', 'freeze_a', 'fedsvd']",
        ),
    ],
)
def test_what_the_parser_refuses_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--model", "Talker", "--data", "SynthTalkData", *arguments])
    error = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and message in error and "\n" not in error


def test_a_checkpoint_of_another_version_is_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = _checkpoint(finished)
    for command, change, message in (
        ("validate", {"fedtalk": "0.0.9"}, "by fedtalk 0.0.9: expected one of fedtalk"),
        ("validate", {"meaning": None}, "without meaning"),
        ("fit", {"faults": None}, "without faults"),
    ):
        torch.save(
            {key: value for key, value in {**saved, **change}.items() if value is not None}, tmp_path / "other.ckpt"
        )
        arguments = ["--config", str(finished.parent / "through.yaml"), "--ckpt_path", str(tmp_path / "other.ckpt"),
                     "--trainer.default_root_dir", str(tmp_path / "run")]  # fmt: skip
        assert main([command, *arguments]) == 1
        assert message in capsys.readouterr().err


def test_one_seed_is_that_of_run_and_data(tiny_backbone: Path, tmp_path: Path) -> None:
    from fedtalk.commands.training import build

    config = yaml.safe_load(_config(tiny_backbone, tmp_path / "seeded").read_text())
    trainer, module, data = build({**config, "seed_everything": 7})
    federation = trainer.connect(module, data, "fit")
    assert federation.seed == 7 and data.training_clips(data.clients[0])[0].key.startswith("synthtalk/7/")


def test_a_damaged_checkpoint_ends_the_command_and_is_not_overwritten(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.ckpt"
    path.write_bytes((finished / "checkpoints" / "last.ckpt").read_bytes()[:2000])
    config = str(finished.parent / "through.yaml")
    arguments = ["--config", config, "--trainer.default_root_dir", str(tmp_path / "run"), "--ckpt_path", str(path)]
    for command in ("fit", "validate"):
        assert main([command, *arguments]) == 1
        assert "cut short" in capsys.readouterr().err
    assert path.stat().st_size == 2000


def test_an_output_folder_that_cant_be_written_is_a_clear_error(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("a file in the way")
    config = str(finished.parent / "through.yaml")
    assert main(["fit", "--config", config, "--trainer.default_root_dir", str(tmp_path / "run")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_help_version_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["help"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"fedtalk {command} " in text for command in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == fedtalk.__version__
    assert main(["fti"]) == 2
    assert f"unknown command 'fti'; expected one of {', '.join(COMMANDS)}" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"flower"}))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 300
