"""What callbacks leave behind: log, videos, adapters, exports, and lines that say where the run stands."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.callbacks.base import RoundCallback
from fedtalk.callbacks.export import Export
from fedtalk.callbacks.personal import PersonalTraining
from fedtalk.callbacks.progress import RoundProgress
from fedtalk.callbacks.video import Videos
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.errors import ConfigurationError, FedTalkError
from fedtalk.federation.client import ClientHalf
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.talker.backbone import Backbone
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining


def _data() -> SynthTalkData:
    return SynthTalkData(speakers=2, clips=1, held_out=1, frames=12, size=32)


Fit = Callable[..., tuple[FederatedTrainer, Talker]]


@pytest.fixture
def fit(tmp_path: Path, make_talker: Callable[..., Talker]) -> Fit:
    """Run two rounds of two local steps with the given callbacks; one, unmeasured, where personal training is looked at."""

    def run(
        *callbacks: object, talker: Talker | None = None, data: SynthTalkData | None = None, **settings: object
    ) -> tuple[FederatedTrainer, Talker]:
        rounds, every = (1, 0) if "personal" in settings else (2, 1)
        trainer = FederatedTrainer(
            cohort=PoissonCohort(1.0), local=LocalTraining(steps=2, batch_size=2), accelerator="cpu",
            default_root_dir=str(tmp_path / "run"), cache_dir=str(tmp_path / "cache"),
            callbacks=list(callbacks), **{"rounds": rounds, "validate_every": every, "switch_off": ["videos"], **settings},
        )  # type: ignore[arg-type]  # fmt: skip
        module = talker or make_talker()
        trainer.fit(module, data or _data(), overwrite=True)
        return trainer, module

    return run


def _log(folder: Path) -> EventAccumulator:
    log = EventAccumulator(str(folder / "run" / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    log.Reload()
    return log


def test_rounds_are_logged_by_round(fit: Fit, tmp_path: Path) -> None:
    outcomes = []

    class Keep(RoundCallback):
        def on_round_end(self, trainer: FederatedTrainer, module: object, outcome: object) -> None:
            outcomes.append(outcome)

    fit(Keep(), aggregation=ISFA(gamma=1.0))
    log = _log(tmp_path)
    tags = set(log.Tags()["scalars"])
    assert {"round/clients", "round/failed", "round/update_norm", "train/loss", "train/diffusion", "train/tdc",
            "held_out/loss", "held_out/low_noise", "held_out/high_noise"} <= tags  # fmt: skip
    for kind in ("weight", "identity", "stability"):
        assert {f"client_{kind}/private-0000", f"client_{kind}/private-0001"} <= tags
    losses = [(event.step, event.value) for event in log.Scalars("train/loss")]
    expected = [np.mean([report.losses["loss"] for report in outcome.reports]) for outcome in outcomes]
    assert [step for step, _ in losses] == [1, 2]
    np.testing.assert_allclose([value for _, value in losses], expected, rtol=1e-5)
    weights = [event.value for event in log.Scalars("client_weight/private-0001")]
    np.testing.assert_allclose(weights, [outcome.reports[1].weight for outcome in outcomes], rtol=1e-5)


def test_videos_show_the_truth_above_what_is_generated(fit: Fit, tmp_path: Path) -> None:
    fit(videos=Videos(every=2, clients=2, frames=6), switch_off=[])
    log = _log(tmp_path)
    (image,) = log.Images("held_out/truth_above_generated_below")  # round 2 only
    assert image.step == 2
    picture = Image.open(io.BytesIO(image.encoded_image_string))
    assert picture.n_frames == 6 and picture.size == (2 * 64, 2 * 64)  # two clients, twice 32 px, twice enlarged
    data = _data()
    truth = data.held_out_clips(data.clients[1])[0].load().frames[0].repeat(2, 0).repeat(2, 1)
    shown = np.asarray(picture.convert("RGB")).astype(int)
    above, below = (np.abs(half - truth).mean() for half in (shown[:64, 64:], shown[64:, 64:]))
    assert above < 6 and below > 1.5 * above  # a GIF has 256 colours


def test_personal_adapters_start_from_the_global_one_and_leave_it(fit: Fit, tmp_path: Path) -> None:
    _, talker = fit(personal=PersonalTraining(steps=3))
    folder = tmp_path / "run" / "adapters"
    states = {p.parent.name: load_file(p) for p in folder.rglob("adapter_model.safetensors")}
    assert set(states) == {"released", "private-0000", "private-0001"}
    final = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["server"]["state"]
    for name, value in talker.exchanged_parameters().items():
        assert torch.equal(value, final[name])  # training goes on from the global state
        saved = "base_model.model." + name.removeprefix("unet.").replace(".default.", ".")
        assert torch.equal(states["released"][saved], value)
    for one, other in (("released", "private-0000"), ("private-0000", "private-0001")):
        assert any(not torch.equal(states[one][name], states[other][name]) for name in states[one])
    distance = {
        name: sum(float((state[k] - states["released"][k]).square().sum()) for k in state)
        for name, state in states.items()
    }
    assert distance["released"] == 0 < distance["private-0000"]
    origins = {json.loads(path.read_text())["made_from"] for path in folder.rglob("made_from.json")}
    assert len(origins) == 1 and "steps=3" in origins.pop(), "both markers name what the adapters were made from"


def test_personal_adapters_help_their_own_client(fit: Fit, tmp_path: Path) -> None:
    """After enough steps alone the loss on the client's own clips is lower than the global adapter's."""
    trainer, talker = fit(personal=PersonalTraining(steps=12, learning_rate=0.02))
    clips = ClientHalf(trainer.federate(talker, _data())).prepared("private-0000")

    def loss(name: str) -> float:
        adapters = tmp_path / "run" / "adapters"
        talker.load_adapter(adapters / name if name == "released" else adapters / "personal" / name)
        return talker.held_out_metrics(clips, torch.Generator().manual_seed(0))["loss"]

    assert loss("private-0000") < 0.97 * loss("released")


def test_personal_adapters_that_are_there_are_not_made_again(
    fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fedtalk")
    fit(personal=PersonalTraining(steps=1))
    first = tmp_path / "run" / "adapters" / "personal" / "private-0000" / "adapter_model.safetensors"
    stamp = first.stat().st_mtime_ns
    (
        tmp_path / "run" / "adapters" / "personal" / "private-0001" / "made_from.json"
    ).unlink()  # stopped before this one was done
    assert first.parents[1].stat().st_mode & 0o777 == 0o700
    second = first.parents[1] / "private-0001" / "adapter_model.safetensors"
    second_stamp = second.stat().st_mtime_ns
    fit(personal=PersonalTraining(steps=1))  # the same bits again, so the same global adapter
    assert "personal adapter of private-0000 is there already" in caplog.text
    assert first.stat().st_mtime_ns == stamp and second.stat().st_mtime_ns > second_stamp
    fit(personal=PersonalTraining(steps=2))  # other settings
    assert first.stat().st_mtime_ns > stamp


def test_a_client_whose_personal_training_fails_costs_no_other_its_adapter(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fedtalk.federation import client

    train = client.train_locally

    def fail(*arguments: object, **settings: object) -> dict:
        if "personal/private-0000" in arguments:
            raise RuntimeError("out of memory")
        return train(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "train_locally", fail)
    fit(personal=PersonalTraining(steps=1))
    assert sorted(path.name for path in (tmp_path / "run" / "adapters" / "personal").iterdir()) == ["private-0001"]
    assert "private-0000 could not be made: out of memory" in caplog.text


def test_in_a_private_run_personal_training_tells_no_loss_and_no_reason(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rounds before it tell none either (`tests/federation/test_privacy.py`)."""
    from fedtalk.federation import client

    train = client.train_locally

    def fail(*arguments: object, **settings: object) -> dict:
        if "personal/private-0000" in arguments:
            raise RuntimeError("a secret of its clips")
        return train(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "train_locally", fail)
    caplog.set_level("INFO", logger="fedtalk")
    fit(
        personal=PersonalTraining(steps=1), rounds=1, validate_every=0, minimum_clients=3,
        privacy=Privacy(clip_norm=1.0, assumptions=Assumptions(0.0, 0.3)),
        data=SynthTalkData(speakers=3, clips=1, held_out=1, frames=12, size=32),
    )  # fmt: skip
    assert "private-0000 could not be made" in caplog.text and "3/3  private-0002" in caplog.text
    assert "secret" not in caplog.text and "loss" not in caplog.text


def test_personal_adapters_of_a_few_and_later_of_the_others(
    fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(personal=PersonalTraining(steps=1, most_clients=1))
    adapters = tmp_path / "run" / "adapters" / "personal"
    assert sorted(path.name for path in adapters.iterdir()) == ["private-0000"]
    assert "personal adapters of 1 of 2 clients are made" in caplog.text
    stamp = (adapters / "private-0000" / "adapter_model.safetensors").stat().st_mtime_ns
    fit(personal=PersonalTraining(steps=1, most_clients=2))
    assert sorted(path.name for path in adapters.iterdir()) == ["private-0000", "private-0001"]
    assert (adapters / "private-0000" / "adapter_model.safetensors").stat().st_mtime_ns == stamp


def test_no_personal_steps_write_the_global_adapter_only(fit: Fit, tmp_path: Path) -> None:
    fit(personal=PersonalTraining(steps=0))
    assert [path.name for path in (tmp_path / "run" / "adapters").iterdir()] == ["released"]


class _Called(SynthTalkData):
    """People of other names."""

    def __init__(self, *names: str) -> None:
        super().__init__(speakers=len(names), clips=1, held_out=1, frames=12, size=32)
        self._names, self._index = list(names), {name: index for index, name in enumerate(names)}


def test_nobodys_name_turns_a_personal_adapter_into_the_released_one(fit: Fit, tmp_path: Path) -> None:
    """What a person is called, in any case: the released adapter stays the one of the checkpoint."""
    names = ["global", "Released", "personal"]
    _, talker = fit(personal=PersonalTraining(steps=2), data=_Called(*names))
    adapters = tmp_path / "run" / "adapters"
    assert sorted(path.name for path in adapters.iterdir()) == ["personal", "released"]
    assert sorted(path.name for path in (adapters / "personal").iterdir()) == sorted(names)
    released = load_file(adapters / "released" / "adapter_model.safetensors")
    final = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["server"]["state"]
    for name in talker.exchanged_parameters():
        saved = "base_model.model." + name.removeprefix("unet.").replace(".default.", ".")
        assert torch.equal(released[saved], final[name])


def test_personal_adapters_need_an_adapter(fit: Fit, make_talker: Callable[..., Talker]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"trainer\.personal: expected a Talker with an adapter, got Talker without"
    ):
        fit(personal=PersonalTraining(steps=1), talker=make_talker(adapter=None), rounds=0)


def test_export_writes_a_backbone_that_loads(fit: Fit, make_talker: Callable[..., Talker], tmp_path: Path) -> None:
    _, talker = fit(Export("made"), talker=make_talker(adapter=None))
    exported = Backbone.load(str(tmp_path / "run" / "made"))
    assert exported.fingerprint() == talker.backbone.fingerprint()
    assert exported.fingerprint() != make_talker().fingerprint()  # it has learned


def test_what_cant_be_exported_says_so(fit: Fit) -> None:
    from fedtalk.training.module import FederatedModule

    with pytest.raises(ConfigurationError, match="has nothing to export; remove the Export callback"):
        FederatedModule.export(object(), Path(), [])  # type: ignore[arg-type]


def test_without_a_terminal_progress_is_lines(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    lines = capsys.readouterr().err.splitlines()
    rounds = [line for line in lines if line.startswith("round ") and "clients" in line]
    assert [line.split()[1] for line in rounds] == ["1/2", "2/2"]
    assert all("2 of 2 clients" in line and "loss 0." in line and "min left" in line for line in rounds)
    assert sum("held out" in line for line in lines) == 2


def test_in_a_terminal_bars_count_rounds_clients_and_steps(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    seen: dict = {}
    shown: list[RoundProgress] = []

    class Look(RoundCallback):
        def on_round_end(self, trainer: FederatedTrainer, module: object, outcome: object) -> None:
            shown[:] = [callback for callback in trainer.callbacks if isinstance(callback, RoundProgress)]
            bars = shown[0]._bars
            assert bars is not None
            seen.update({task.description: (task.completed, task.total) for task in bars.tasks})

    fit(Look())
    assert seen == {"rounds": (2, 2), "clients": (2, 2), "steps": (2, 2)}
    assert shown[0]._bars is None  # stopped, the terminal is as it was
    capsys.readouterr()


def test_bars_are_stopped_when_training_fails(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    shown: list[RoundProgress] = []

    class Fail(RoundCallback):
        def on_round_end(self, trainer: FederatedTrainer, *arguments: object) -> None:
            shown[:] = [callback for callback in trainer.callbacks if isinstance(callback, RoundProgress)]
            assert shown[0]._bars is not None
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with pytest.raises(KeyboardInterrupt):
        fit(Fail())
    assert shown[0]._bars is None


def test_lost_clients_are_counted(
    fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Talker, clips: object, size: int, generator: torch.Generator) -> None:
        raise OSError("gone")

    monkeypatch.setattr(Talker, "draw_batch", fail)
    with pytest.raises(FedTalkError, match="none of the 1 rounds gave an update"):
        fit(rounds=1, validate_every=0)
    assert "0 of 2 clients, 2 lost  no update" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["every", "clients", "frames"])
def test_wrong_video_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"trainer\.videos\.{setting}: expected at least 1, got 0"):
        Videos(**{setting: 0})


def test_wrong_personal_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"personal\.steps: expected at least 0, got -1"):
        PersonalTraining(steps=-1)
