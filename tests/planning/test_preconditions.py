"""What a fit refuses before any work: folders it cannot use, a ledger whose promise would be lost, numbers at the edge."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedtalk.callbacks.personal import PersonalTraining
from fedtalk.errors import ConfigurationError, OutputError
from fedtalk.federation.server import ServerOptimizer
from fedtalk.planning.preconditions import check_folders, check_ledger
from fedtalk.privacy.settings import Privacy
from fedtalk.training.local import LocalTraining


def test_a_cache_that_cant_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(OutputError, match=r"cannot write .*cache: .*--trainer\.cache_dir"):
        check_folders(tmp_path / "run", tmp_path / "cache", afresh=True)
    check_folders(tmp_path / "run", tmp_path / "other", afresh=True)
    assert list((tmp_path / "other").iterdir()) == []  # nothing is left of the attempt


def test_finished_work_is_not_replaced_without_being_told(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ConfigurationError, match=r"holds a run already, .*--ckpt_path last .*--overwrite"):
        check_folders(tmp_path / "run", tmp_path / "cache", afresh=True)
    check_folders(tmp_path / "run", tmp_path / "cache", afresh=False)


@pytest.mark.parametrize("privacy", [None, Privacy(clip_norm=1.0)], ids=["none", "sealed"])
def test_a_ledgers_folder_takes_no_run_without_noise(tmp_path: Path, privacy: Privacy | None) -> None:
    (tmp_path / "checkpoints").mkdir()
    check_ledger(tmp_path, privacy)
    (tmp_path / "checkpoints" / "ledger.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"were differentially private, .*--trainer\.allow_unprivate true"):
        check_ledger(tmp_path, privacy)
    check_ledger(tmp_path, Privacy(noise_multiplier=1.0))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((LocalTraining, {"learning_rate": value}) for value in (0.0, math.inf, math.nan, 1e30)),
        *(
            (LocalTraining, {name: value})
            for name in ("proximal", "gradient_clip")
            for value in (-1.0, math.inf, math.nan)
        ),
        *((LocalTraining, {"deadline_seconds": value}) for value in (0.0, math.inf, math.nan)),
        *((ServerOptimizer, {name: math.nan}) for name in ("learning_rate", "momentum", "epsilon")),
        (ServerOptimizer, {"betas": (0.9, 1.0)}),
        *((PersonalTraining, {"learning_rate": value}) for value in (0.0, math.inf, math.nan)),
    ],
    ids=str,
)
def test_numbers_at_the_edge_are_refused_with_what_was_expected(kind: type, settings: dict) -> None:
    with pytest.raises(ConfigurationError, match=r"expected .*got"):
        kind(**settings)
