"""Every shipped config through the real command line's parser, down to the objects it builds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fedtalk.cli import main
from fedtalk.training.local import LocalTraining

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
WHOLE = ("model", "data", "trainer")


def _stack(config: Path) -> list[str]:
    """An overlay goes on top of the config that its first line names, which may be one too; of isfa.yaml where it names none."""
    text, own = config.read_text(), ["--config", str(config)]
    if set(yaml.safe_load(text)) == set(WHOLE) and "Overlay" not in text:
        return own
    named = re.search(r"Overlay of (\w+\.yaml)", text)
    return _stack(config.with_name(named[1] if named else "isfa.yaml")) + own


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """The resolved config that the command line prints."""
    monkeypatch.chdir(ROOT)

    def parse(arguments: list[str]) -> dict:
        with pytest.raises(SystemExit) as ended:
            main(["fit", *arguments, "--print_config"])
        output = capsys.readouterr()
        assert ended.value.code == 0, output.err
        return yaml.safe_load(output.out)

    return parse


def _given(value: object, path: str = "") -> dict[str, object]:
    """Leaves of a config by their path."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in _given(part, f"{path}/{name}").items()}
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return {k: v for number, part in enumerate(value) for k, v in _given(part, f"{path}/{number}").items()}
    return {path: value}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_parsed_and_each_of_its_values_arrives(config: Path, printed: Callable[..., dict]) -> None:
    resolved = printed(_stack(config))
    assert set(resolved) >= set(WHOLE)
    wanted, got = _given(yaml.safe_load(config.read_text())), _given(resolved)
    for path, value in wanted.items():
        if path.endswith("/class_path") and "." not in value:  # a short name arrives as a whole one
            assert got[path].endswith(f".{value}")
        else:
            assert got[path] == value


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_its_trainer_and_data_can_be_built(
    config: Path, printed: Callable[..., dict], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Values that parse but contradict each other would only be found here."""
    from fedtalk.federation.trainer import FederatedTrainer

    resolved = printed(_stack(config))
    # Objects are built through jsonargparse, as the command line does.
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(FederatedTrainer, "trainer")
    settings = {name: value for name, value in resolved["trainer"].items() if name != "logger"}
    settings["default_root_dir"] = str(tmp_path)
    built = parser.instantiate_classes(parser.parse_object({"trainer": settings}))
    trainer = built["trainer"]
    assert isinstance(trainer.local, LocalTraining)
    rule = (resolved["trainer"]["aggregation"] or {"class_path": "FedAvg"})["class_path"].rsplit(".", 1)[-1]
    assert type(trainer.aggregation).__name__ == rule
    assert (trainer.privacy is None) == (resolved["trainer"]["privacy"] is None)


def test_configs_are_short_and_differ_by_no_path_or_hardware() -> None:
    """An overlay says what is new; forty near-copies helped nobody."""
    assert len(CONFIGS) >= 8
    contents = {}
    for config in CONFIGS:
        text = config.read_text()
        assert text.startswith("#") and len(text.splitlines()) < 40
        said = re.sub(r"#.*", "", text)
        assert not re.search(r"(^|[\s:\"'])(/|~|[A-Z]:\\)", said), f"absolute path in {config}"
        assert not re.search(r"\b(devices|accelerator|cuda|gpu|num_nodes)\b", said)
        values = {k: str(v) for k, v in _given(yaml.safe_load(text)).items() if not k.endswith("default_root_dir")}
        contents[config.stem] = values
    names = [name for name in contents if contents[name]]
    assert len({str(sorted(contents[name].items())) for name in names}) == len(names)


def test_overlays_change_what_they_say(printed: Callable[..., dict]) -> None:
    def trainer(*names: str) -> dict:
        return printed([part for name in names for part in ("--config", f"configs/{name}.yaml")])["trainer"]

    assert trainer("isfa")["local"]["proximal"] == 0.0 < trainer("isfa", "fedprox")["local"]["proximal"]
    isfa, fedavg, adam = (
        trainer(*names)["aggregation"] for names in (("isfa",), ("isfa", "fedavg"), ("isfa", "server_adam"))
    )
    assert isfa["class_path"].endswith(".ISFA") and fedavg["class_path"].endswith(".FedAvg")
    assert adam["init_args"] == {**isfa["init_args"], "server_optimizer": adam["init_args"]["server_optimizer"]}
    assert adam["init_args"]["server_optimizer"]["name"] == "adam"
    frozen = printed(["--config", "configs/isfa.yaml", "--config", "configs/freeze_a.yaml"])
    adapter = frozen["model"]["init_args"]["adapter"]
    assert (adapter["aggregation"], adapter["rank"]) == ("freeze_a", 8)  # and the rest of the adapter stays


@pytest.mark.parametrize("names", [("private",), ("isfa", "private")])
def test_private_is_the_same_alone_and_on_top_of_isfa(names: tuple[str, ...], printed: Callable[..., dict]) -> None:
    resolved = printed([part for name in names for part in ("--config", f"configs/{name}.yaml")])
    adapter, data = resolved["model"]["init_args"]["adapter"], resolved["data"]["init_args"]
    assert (adapter["rank"], adapter["aggregation"], adapter["targets"]) == (2, "freeze_a", ["to_v", "to_out.0"])
    assert (data["speakers"], data["clips"], data["frames"]) == (800, 2, 16)
    privacy = resolved["trainer"]["privacy"]
    assert (privacy["target_epsilon"], privacy["noise_multiplier"], privacy["secure_aggregation"]) == (8.0, None, True)
    assert privacy["adaptive_clipping"]["quantile"] == 0.5 and privacy["insecure_noise_seed"] is None
    assert resolved["trainer"]["videos"] is None and resolved["trainer"]["personal"] is None


def test_a_contradiction_in_privacy_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "configs" / "private.yaml").read_text().replace("delta:", "noise_multiplier: 1.0\n    delta:")
    (tmp_path / "both.yaml").write_text(text)
    try:
        code: object = main(["fit", "--config", str(tmp_path / "both.yaml")])
    except SystemExit as ended:
        code = ended.code
    assert code not in (0, None)
    assert "got both (8 and 1). Leave one out" in capsys.readouterr().err


def test_dp_of_the_readme_can_be_named_on_the_command_line(printed: Callable[..., dict]) -> None:
    got = printed(["--config", "configs/isfa.yaml", "--trainer.rounds", "3", "--trainer.local.steps", "5"])
    assert (got["trainer"]["rounds"], got["trainer"]["local"]["steps"]) == (3, 5)
    assert got["trainer"]["local"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("--trainer.roundz", "3"),
        ("--trainer.local.stepz", "3"),
        ("--model.init_args.no_such", "1"),
        ("--data.init_args.speekers", "3"),
        ("--model.init_args.adapter.rnak", "3"),
        ("--trainer.cohort.init_args.ratio", "0.5"),
    ],
)
def test_an_unknown_key_ends_with_an_error_that_names_it(
    key: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "configs/isfa.yaml", key, value])
    assert ended.value.code not in (0, None)
    assert key.rsplit(".", 1)[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "trainer: {roundz: 3}", "trainer: {local: {stepz: 3}}", "model: {init_args: {no_such: 1}}",
        "trainer: {aggregation: {class_path: ISFA, init_args: {gama: 1}}}",
        "trainer: {aggregation: {class_path: fedtalk.callbacks.agregation.ISFA}}", "no_such: 1",
    ],
)  # fmt: skip
def test_an_unknown_key_in_a_file_is_named_too(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "overlay.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "configs/isfa.yaml", "--config", str(tmp_path / "overlay.yaml")])
    assert ended.value.code not in (0, None)
    wrong = re.search(r"roundz|stepz|no_such|gama|agregation", text)
    assert wrong is not None and wrong.group() in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value"), [("rounds", "many"), ("local.learning_rate", "fast"), ("cohort", "4")])
def test_a_value_of_the_wrong_kind_names_its_key(
    key: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "configs/isfa.yaml", f"--trainer.{key}", value])
    assert ended.value.code not in (0, None)
    assert key.split(".")[0] in capsys.readouterr().err
