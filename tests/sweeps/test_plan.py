"""What a sweep plans: seeds, variations, keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtalk.errors import ConfigurationError
from fedtalk.sweeps import plan
from fedtalk.sweeps.plan import PlannedRun, Variation, parse_choices, parse_seeds, variations


@pytest.mark.parametrize("text", ["", "a", "3-1", "0,0", "1--2", "0-2,1", "-1"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="seeds"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["", "rank", "=2", "rank=", " =2"])
def test_choices_without_key_or_value_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="KEY=A,B"):
        parse_choices(text)


@pytest.mark.parametrize("text", ["rank=2,", "rank=,2", "rank=2,,8"])
def test_commas_without_a_value_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="between any two commas"):
        parse_choices(text)


@pytest.mark.parametrize("key", plan.OWN)
def test_what_the_sweep_sets_itself_is_not_varied(key: str) -> None:
    """A run's own seed, folder and threads stand behind its variation on its command line: such a one would be a name alone."""
    with pytest.raises(ConfigurationError, match=f"{key} would change nothing"):
        variations([f"{key}=1,2"])


def test_variations_are_all_combinations_and_the_first_is_the_first() -> None:
    found = variations(["a.b=1,2", "c=[x,y],{z: 1, w: 2}"])
    assert [v.arguments for v in found] == [
        ("--a.b=1", "--c=[x,y]"), ("--a.b=1", "--c={z: 1, w: 2}"), ("--a.b=2", "--c=[x,y]"), ("--a.b=2", "--c={z: 1, w: 2}"),
    ]  # fmt: skip
    assert [v.name for v in variations([])] == ["base"] and variations([])[0].arguments == ()


def test_overlays_vary_like_a_key(tmp_path: Path) -> None:
    one, other = tmp_path / "fedavg.yaml", tmp_path / "fedprox.yaml"
    one.touch(), other.touch()
    found = variations([f"config=base,{one},{one}+{other}"])
    assert [v.name for v in found] == ["base", "fedavg", "fedavg+fedprox"]
    assert found[2].arguments == ("--config", str(one), "--config", str(other))
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml"):
        variations(["config=base,nowhere.yaml"])
    with pytest.raises(ConfigurationError, match="'base' stands alone"):
        variations([f"config=base+{one}"])


def test_a_plus_in_a_path_is_no_joint(tmp_path: Path) -> None:
    one, other = tmp_path / "c++" / "a+b.yaml", tmp_path / "c++" / "c.yaml"
    one.parent.mkdir()
    one.touch(), other.touch()
    (found,) = variations([f"config={one}+{other}"])
    assert found.arguments == ("--config", str(one), "--config", str(other)) and found.name == "a+b+c"


def test_a_key_twice_and_two_variations_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="each key once"):
        variations(["a=1", "a=2"])
    with pytest.raises(ConfigurationError, match="one name"):
        variations(["a=1,1"])


def test_a_run_is_named_by_config_seed_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"x=1": "one", "x=2": "two"}
    monkeypatch.setattr(plan, "resolve", lambda configs, variation: texts[variation.name])
    keys = {(run.variation.name, run.seed): run.key for run in plan.plan([], [0, 1], ["x=1,2"])}
    assert len(set(keys.values())) == 4
    assert {(r.variation.name, r.seed): r.key for r in plan.plan([], [0, 1], ["x=1,2"])} == keys
    texts["x=1"] = "changed"
    changed = {(r.variation.name, r.seed): r.key for r in plan.plan([], [0, 1], ["x=1,2"])}
    assert changed["x=1", 0] != keys["x=1", 0] and changed["x=2", 0] == keys["x=2", 0]
    assert plan.plan([], [0], ["x=2"], threads=2)[0].key != keys["x=2", 0], "bits depend on threads"
    monkeypatch.setattr(plan, "code_version", lambda: "another")
    assert plan.plan([], [0], ["x=2"])[0].key != keys["x=2", 0]


def test_two_names_of_one_config_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "resolve", lambda configs, variation: str(float(variation.name.partition("=")[2])))
    with pytest.raises(ConfigurationError, match=r"'x=1' and 'x=1\.0' come to the same config"):
        plan.plan([], [0], ["x=1,2,1.0"])


def test_a_key_has_nothing_of_what_the_sweep_sets_itself(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    texts = []
    for seed, threads in ((0, 1), (7, 2)):
        config.write_text(
            f"seed_everything: {seed}\ntrainer: {{threads: {threads}, cache_dir: {tmp_path / str(seed)}}}\n"
        )
        texts.append(plan.resolve(["configs/isfa.yaml", str(config)], Variation("base", ())))
    assert texts[0] == texts[1] and "rounds:" in texts[0]


def test_the_code_version_follows_sources_and_weights() -> None:
    root = Path(plan.__file__).parents[1]
    assert len(plan.code_version()) == 64 and plan.code_version() == plan.code_version()
    assert list((root / "callbacks").rglob("*.py")), "the callbacks are part of what is hashed"


def test_folders_have_readable_safe_names() -> None:
    run = PlannedRun(Variation("model.adapter.targets=[a/b, c]", ()), 3, "0123456789abcdef")
    assert run.folder_name == "model.adapter.targets=-a-b-c--seed-3-0123456789"
