"""A run forgets who took consent back before it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def test_a_fit_deletes_the_adapters_of_people_who_took_consent_back(
    run: Callable, people: dict, colour_data: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(people)
    folder = made.trainer.run_dir / "adapters" / "personal" / "zoe"
    kept = made.trainer.run_dir / "adapters" / "personal" / next(iter(people))
    for path in (folder, kept):
        path.mkdir(parents=True)
        (path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(colour_data, "revoked", ["zoe"])
    run(people)
    assert not folder.exists() and kept.exists()
