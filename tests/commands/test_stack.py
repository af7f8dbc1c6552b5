"""Configs that stack: order, overlays that do nothing, promises that must not be lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonargparse import Namespace

from fedtalk.commands.stack import check_promises, check_stack, expand_config
from fedtalk.errors import ConfigurationError

WHOLE = "model: {class_path: A}\ndata: {class_path: B}\ntrainer: {rounds: 3, local: {steps: 2}"
NOISED = ", privacy: {target_epsilon: 8.0}"
SEALED = ", privacy: {clip_norm: 1.0}"


@pytest.fixture
def write(tmp_path: Path):
    def write(**texts: str) -> list[str]:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return [str(tmp_path / f"{name}.yaml") for name in texts]

    return write


def _config(folder: Path, privacy: dict | None = None, allow: bool = False) -> Namespace:
    trainer = Namespace(privacy=privacy, allow_unprivate=allow, default_root_dir=str(folder / "run"))
    return Namespace(trainer=trainer)


def test_an_overlay_before_what_it_changes_is_refused_with_the_order_that_works(write) -> None:
    files = write(overlay="trainer: {rounds: 5}", base=WHOLE + "}")
    with pytest.raises(
        ConfigurationError, match=r"overlay\.yaml is an overlay and comes before .*put .*base\.yaml before it"
    ):
        check_stack(files)
    check_stack(files[::-1])
    with pytest.raises(
        ConfigurationError, match=r"overlay\.yaml is an overlay, without data and model: .*put isfa\.yaml before"
    ):
        check_stack(files[:1])
    check_stack(files[:1], {"model"})  # which the command line gives


def test_an_overlay_that_changes_nothing_is_told(write, caplog: pytest.LogCaptureFixture) -> None:
    base, same, other = write(
        base=WHOLE + "}", same="trainer: {local: {steps: 2}}", other="trainer: {local: {steps: 4}}"
    )
    check_stack([base, other])
    assert not caplog.records
    check_stack([base, same])
    assert "same.yaml changes nothing" in caplog.text


@pytest.mark.parametrize(
    ("promised", "got", "lost"),
    [
        (NOISED, None, "differential privacy and secure aggregation"),
        (NOISED, {"clip_norm": 1.0}, "differential privacy"),
        (SEALED, None, "secure aggregation"),
        (NOISED, {"noise_multiplier": 1.0, "secure_aggregation": False}, "secure aggregation"),
        (NOISED, {"noise_multiplier": 1.0}, None),
        ("", None, None),
    ],
)
def test_a_promise_of_any_config_is_not_lost_without_being_told(
    write, tmp_path: Path, promised: str, got: dict | None, lost: str | None
) -> None:
    files = write(base=WHOLE + promised + "}", overlay="trainer: {privacy: null}")
    if lost is None:
        check_promises(files, _config(tmp_path, got))
        return
    with pytest.raises(ConfigurationError, match=rf"base\.yaml promises {lost}, .*--trainer\.allow_unprivate true"):
        check_promises(files, _config(tmp_path, got))
    check_promises(files, _config(tmp_path, got, allow=True))


def test_the_promise_of_the_run_in_the_folder_counts_too(write, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(WHOLE + SEALED + "}")
    with pytest.raises(ConfigurationError, match=r"run/config\.yaml promises secure aggregation"):
        check_promises(write(base=WHOLE + "}"), _config(tmp_path))


def test_home_and_variables_mean_what_they_do_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("CLIPS", "/data/clips")
    config = Namespace(
        trainer=Namespace(cache_dir="~/c", rounds=3), data=Namespace(init_args=Namespace(root="${CLIPS}/a"))
    )
    expand_config(config)
    assert (config.trainer.cache_dir, config.data.init_args.root, config.trainer.rounds) == (
        "/home/anna/c",
        "/data/clips/a",
        3,
    )
    with pytest.raises(ConfigurationError, match=r"expected \$NO_SUCH_VARIABLE to be set"):
        expand_config(Namespace(trainer=Namespace(cache_dir="$NO_SUCH_VARIABLE/c")))
