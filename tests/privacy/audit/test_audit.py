"""`fedtalk audit` from end to end on a tiny run, and the errors that a user can meet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fedtalk.cli import main
from fedtalk.privacy.audit import audit, result
from fedtalk.privacy.audit.membership import MembershipResult
from fedtalk.privacy.audit.verdict import Verdict

SMALL = ["--clients", "4", "--canaries", "96", "--targets", "2", "--decoys", "3", "--threads", "1"]


def fit(backbone: Path, folder: Path, *, adapter: bool = True, privacy: dict | None = None, speakers: int = 3,
        rate: float = 1.0) -> Path:  # fmt: skip
    """A run of two rounds over SynthTalk clients at 32 px; gives its folder."""
    model = {"backbone": str(backbone), "window": 4, "stride": 4, "sampling_steps": 2}
    if adapter:
        model["adapter"] = {"rank": 2, "alpha": 4.0, "aggregation": "freeze_a" if privacy else "factors"}
    config = {
        "model": {"class_path": "fedtalk.talker.module.Talker", "init_args": model},
        "data": {
            "class_path": "fedtalk.data.synthtalk_data.SynthTalkData",
            "init_args": {"speakers": speakers, "clips": 1, "held_out": 1, "frames": 12, "size": 32},
        },
        "trainer": {
            "rounds": 2, "validate_every": 0, "accelerator": "cpu", "threads": 1, "default_root_dir": str(folder),
            "cache_dir": str(folder.parent / "cache"), "local": {"steps": 2, "batch_size": 2},
            "cohort": {"class_path": "fedtalk.federation.cohort.PoissonCohort", "init_args": {"rate": rate}},
        },
    }  # fmt: skip
    if privacy is not None:
        config["trainer"]["privacy"] = privacy
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(path)]) == 0
    return folder


@pytest.fixture(scope="module")
def run(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tiny_backbone, tmp_path_factory.mktemp("audited") / "run")


def read(run: Path) -> dict:
    return json.loads((run / "audit" / "audit.json").read_text())


@pytest.fixture(scope="module")
def audited(run: Path) -> dict:
    """What audit.json of a first audit holds."""
    assert main(["audit", str(run), *SMALL]) == 0
    return read(run)


def test_without_privacy_the_canaries_are_found(audited: dict) -> None:
    assert audited["ledger"]["epsilon"] is None, "nothing is promised"
    assert audited["epsilon_lower_bound"] == audited["canaries"]["as configured"]["epsilon"] > 2
    assert audited["verdict"] == "no promise" and audited["canaries"]["as configured"]["checks"] == []
    detail = audited["canaries"]["as configured"]["detail"]
    assert detail["correct"] == detail["guesses"]


def test_every_attack_is_reported_beside_its_chance(audited: dict) -> None:
    assert len(audited["membership"]["members"]) == 3 and len(audited["membership"]["others"]) == 4
    assert 0 <= audited["membership"]["auc"] <= 1
    for attack in ("identity", "appearance"):
        views = audited["reconstruction"][attack]
        assert list(views) == ["clear update", "masked update", "sum of updates"]
        for ranks in views.values():
            assert len(ranks["ranks"]) == 2 and ranks["candidates"] == 4 and ranks["chance"] == 0.25


def test_the_picture_can_be_opened(audited: dict, run: Path) -> None:
    with Image.open(run / "audit" / "audit.png") as picture:
        assert picture.width > 1000 and picture.height > 400
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert sorted(path.name for path in (run / "audit").iterdir()) == ["audit.json", "audit.png"]


def test_the_same_seed_gives_the_same_audit(audited: dict, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(run), *SMALL, "--targets", "0"]) == 0
    again = read(run)
    assert again["membership"] == audited["membership"] and again["canaries"] == audited["canaries"]
    printed = capsys.readouterr().out
    assert "no guarantee" in printed and "AUC" in printed and "The run promises nothing" in printed


def test_repeated_runs_are_the_other_method(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["audit", str(run), *SMALL, "--targets", "0", "--method", "repeated", "--canaries", "40"]
    capsys.readouterr()
    assert main([*arguments, "--rounds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == read(run)  # one line, and the same as the file
    bound = read(run)["canaries"]["as configured"]
    assert bound["runs"] == bound["canaries"] == 40 and bound["rounds"] == 1
    assert bound["detail"]["true_positives"] == bound["detail"]["positives"]
    assert bound["detail"]["false_positives"] == 0
    assert bound["epsilon"] == bound["most"] > 0.5


@pytest.fixture(scope="module")
def private(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Audited: a run under secure aggregation with a budget of epsilon 8."""
    privacy = {"target_epsilon": 8.0, "delta": 1e-2, "clip_norm": 0.5}
    run = fit(tiny_backbone, tmp_path_factory.mktemp("private") / "run", privacy=privacy, speakers=8)
    assert main(["audit", str(run), *SMALL, "--rounds", "1", "--canaries", "48"]) == 0
    return run


def test_with_privacy_the_bound_stays_below_the_ledger_and_the_control_is_found(private: Path) -> None:
    found = read(private)
    assert found["ledger"]["delta"] == found["delta"] == 1e-5
    assert found["ledger"]["epsilon"] > 8, "at a smaller delta than the run's"
    own = float(found["ledger"]["note"].split()[0])
    assert 7 < own <= 8
    # At rate 1 sampling hides nobody: the same adversary, but for the accountants' slack.
    assert 0.95 < found["ledger"]["insiders"] / found["ledger"]["epsilon"] <= 1.001
    assert found["ledger"]["insiders_are"] == "against server and sites (no sampling)"
    assert found["epsilon_lower_bound"] < found["ledger"]["epsilon"]
    # 48 canaries reach some 2, the ledger claims more than 8: whatever they find, they can't refute it.
    assert found["verdict"] == "inconclusive" and "below the ledger's" in found["reasons"][0]
    checks = {check["name"]: check["holds"] for check in found["canaries"]["as configured"]["checks"]}
    assert checks == {"bound": True, "noise": True, "freshness": True, "secrecy": True, "charges": True}
    control = found["canaries"]["privacy off"]
    assert control["epsilon"] > 1 and control["detail"]["correct"] == control["detail"]["guesses"]


def test_the_canaries_see_the_noise_that_the_ledger_accounts_for(private: Path) -> None:
    """Along one direction, in units of C: the noise multiplier times the sensitivity sqrt(2)."""
    found = read(private)
    measured = found["canaries"]["as configured"]
    rounds = measured["runs"] * measured["rounds"]
    expected = 2**0.5 * found["ledger"]["noise_multiplier"]
    # Four directions of each run have no canary; distributed noise may be up to half again as large as accounted.
    tolerance = 4 * expected / (2 * 4 * rounds) ** 0.5
    assert expected - tolerance < measured["noise"] < 1.5 * expected + tolerance


def test_with_privacy_masked_and_noised_views_are_reported(private: Path) -> None:
    found = read(private)
    assert list(found["reconstruction"]["identity"]) == [
        "clear update", "masked update", "sum of updates", "noised sum",
    ]  # fmt: skip


def test_a_guarantee_that_does_not_hold_is_an_error(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger accounts for noise of multiplier 4; the mechanism adds a hundredth of it."""
    from fedtalk.privacy import mechanism

    honest = mechanism.discrete_gaussian
    privacy = {"noise_multiplier": 4.0, "delta": 1e-2, "where": "central", "secure_aggregation": False}
    run = fit(tiny_backbone, tmp_path / "broken", privacy=privacy, speakers=8)
    monkeypatch.setattr(mechanism, "discrete_gaussian", lambda deviation, *rest: honest(deviation // 100, *rest))
    arguments = [str(run), *SMALL, "--targets", "0", "--canaries", "120", "--rounds", "1", "--delta", "1e-4"]
    assert "does not keep its guarantee" in _error(arguments, capsys)
    found = read(run)
    assert found["verdict"] == "broken" and found["epsilon_lower_bound"] > found["ledger"]["epsilon"]
    assert found["reasons"][0].startswith("BROKEN, noise: measured")


@pytest.fixture(scope="module")
def noised(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with central noise, half of its clients a round."""
    privacy = {
        "noise_multiplier": 1.0,
        "delta": 1e-2,
        "where": "central",
        "secure_aggregation": False,
        "accountant": "rdp",
        "dropout_probability": 0.001,  # so that rounds of so few clients are not void by one client's doing
    }
    return fit(tiny_backbone, tmp_path_factory.mktemp("noised") / "run", privacy=privacy, speakers=24, rate=0.5)


QUICK = ["--clients", "4", "--targets", "0", "--threads", "1", "--canaries", "96", "--rounds", "4"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "premise"),
    [
        ("noise / 10", "noise"), ("noise x 0.9", "noise"), ("clipping off", "bound"), ("weight above 1", "bound"),
        ("public cohort seed", "secrecy"), ("charge at half rate", "charges"),
    ],
)  # fmt: skip
def test_the_command_ends_with_an_error_for_every_mutant(
    noised: Path, mutants: dict, mutant: str, premise: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    mutants[mutant](monkeypatch)
    assert f"BROKEN, {premise}: " in _error([str(noised), *QUICK], capsys)
    assert read(noised)["verdict"] == "broken"


def test_every_verdict_is_said_and_only_a_broken_promise_is_an_error(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the verdict to the exit status; how one comes to the verdict is `test_mutants.py`'s."""
    measure, measured = audit._membership, []

    def once(*arguments: Any) -> MembershipResult:  # it is the same for all, and no part of the verdict
        if not measured:
            measured.append(measure(*arguments))
        return measured[0]

    monkeypatch.setattr(audit, "_membership", once)
    for verdict in Verdict:
        reason = f"{verdict.value}, because of what was measured."
        monkeypatch.setattr(result, "judge", lambda *given, found=(verdict, [reason]): found)
        capsys.readouterr()
        ended = main(["audit", str(run), *QUICK, "--canaries", "0"])
        printed = capsys.readouterr()
        assert ended == (1 if verdict is Verdict.BROKEN else 0)
        assert reason in " ".join(printed.out.split()) and (reason in printed.err) == bool(ended)
        assert read(run)["verdict"] == verdict.value


def _error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["audit", *arguments]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_errors_name_what_is_wrong(
    run: Path, tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such run" in _error([str(tmp_path / "none")], capsys)
    (tmp_path / "empty").mkdir()
    assert "has no config.yaml; run `fedtalk fit` first" in _error([str(tmp_path / "empty")], capsys)
    cut = shutil.copytree(run, tmp_path / "cut")
    last = cut / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:2000])
    assert "cut short" in _error([str(cut)], capsys)
    bare = fit(tiny_backbone, tmp_path / "bare", adapter=False)
    assert "without adapters" in _error([str(bare)], capsys)
    with pytest.raises(SystemExit):
        main(["audit", str(run), "--method", "guess"])
    assert "one of ['one_run', 'repeated']. Got value: guess" in capsys.readouterr().err
    assert "--confidence" in _error([str(run), "--confidence", "1"], capsys)
    (cut / "config.yaml").write_text("model: [")
    assert "config.yaml can't be read" in _error([str(cut)], capsys)


def test_people_from_a_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data other than SynthTalk need non-members from a folder, none of whom may be a client."""
    from fedtalk.data.synthtalk import Speaker, make_clip

    def people(folder: Path, numbers: range) -> Path:
        for number in numbers:
            clip = make_clip(Speaker.draw(0, "private", number), 0, 36, 32)
            clip.save(folder / f"person-{number}" / "clip-0000.npz")
        return folder

    members, strangers = people(tmp_path / "members", range(2)), people(tmp_path / "strangers", range(10, 14))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {
        "class_path": "fedtalk.data.folder_data.FolderData",
        "init_args": {"root": str(members), "size": 32, "held_out_seconds": 0.4},
    }
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("audit"))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    few = [str(folder), "--canaries", "0", "--targets", "0"]
    assert "--non_members FOLDER" in _error(few, capsys)
    assert "person-0, person-1 took part" in _error([*few, "--non_members", str(members)], capsys)
    assert main(["audit", *few, "--non_members", str(strangers)]) == 0
    found = read(folder)
    assert len(found["membership"]["others"]) == 4 and found["canaries"] == {} and found["reconstruction"] is None
