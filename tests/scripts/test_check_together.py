"""The comparison of training in one batch and apart: it finds them equal, and finds what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def check(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("check_together")


def test_in_one_batch_as_apart(check: ModuleType, tiny_backbone: Path, tmp_path: Path) -> None:
    found = check.compare(str(tiny_backbone), str(tmp_path), [1], 1, 2, (1, 1))
    assert found["exact"]["worst"] < 1e-9 and found["exact"]["clients"] == 4
    assert found["together"]["median"] < 1e-2  # rounding, which AdamW makes larger; mixed-up clients differ by about 1


def test_mixed_up_clients_show(
    check: ModuleType, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = check.train_together

    def mixed_up(*arguments: object) -> dict:
        ends = train(*arguments)
        return dict(zip(ends, reversed(ends.values()), strict=True))

    monkeypatch.setattr(check, "train_together", mixed_up)
    found = check.compare(str(tiny_backbone), str(tmp_path), [1], 1, 2, (1, 1))
    assert found["exact"]["above_1e-4"] == found["together"]["above_1e-4"] == 4
