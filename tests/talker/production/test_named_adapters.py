"""Adapters by name, alone and blended; the blend against the sum of the matrices."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import torch

from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.talker.module import Talker
from fedtalk.talker.production.named_adapters import find_adapter, parse_adapters, use_adapters


@pytest.fixture
def runs(tmp_path: Path, make_talker: Callable[..., Talker], randomise: Callable, monkeypatch) -> Path:
    """runs/one has anna and bert, runs/two anna."""
    for seed, place in enumerate(("one/adapters/anna", "one/adapters/personal/bert", "two/adapters/anna")):
        talker = make_talker()
        randomise(talker, seed)
        talker.save_adapter(tmp_path / "runs" / place)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.mark.parametrize("text", ["anna:x", "anna:0", "anna:-1", "anna:nan", ":1", "", "anna,anna", "anna,"])
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="adapter"):
        parse_adapters(text)


def test_a_name_is_found_in_a_run_or_in_all_runs_and_never_guessed(runs: Path) -> None:
    assert find_adapter("anna", runs / "one") == runs / "one/adapters/anna"
    assert find_adapter("bert").resolve() == runs / "one/adapters/personal/bert"
    assert find_adapter(str(runs / "two/adapters/anna")) == runs / "two/adapters/anna"
    with pytest.raises(ArtifactError, match=r"anna: found in runs/one/adapters/anna, runs/two/adapters/anna"):
        find_adapter("anna")
    with pytest.raises(ArtifactError, match=r"no such name in the runs below runs/ \(there are anna, bert\)"):
        find_adapter("cleo")
    with pytest.raises(ArtifactError, match=r"no such name in run .*two \(there are anna\)"):
        find_adapter("bert", runs / "two")


def _change(talker: Talker, x: torch.Tensor) -> torch.Tensor:
    """What the adapters add to a layer's answer."""
    layer = talker.backbone.denoiser.unet.conv_in
    return layer(x) - layer.base_layer(x)


def test_a_blend_is_the_weighted_sum_of_the_adapters(runs: Path, make_talker: Callable[..., Talker]) -> None:
    single = {}
    for name in ("anna", "bert"):
        talker = make_talker(adapter=None)
        assert use_adapters(talker, {name: 1.0}, runs / "one") == {name: 1.0}
        single[name] = talker
    blended = make_talker(adapter=None)
    assert use_adapters(blended, {"anna": 0.7, "bert": 0.4}, runs / "one") == {"anna": 0.7, "bert": 0.4}
    x = torch.randn(2, blended.backbone.denoiser.unet.conv_in.base_layer.in_channels, 4, 4)
    with torch.no_grad():
        expected = 0.7 * _change(single["anna"], x) + 0.4 * _change(single["bert"], x)
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(_change(blended, x), expected, atol=1e-5, rtol=1e-4)
        half = make_talker(adapter=None)
        use_adapters(half, {"anna": 0.5}, runs / "one")
        torch.testing.assert_close(_change(half, x), 0.5 * _change(single["anna"], x), atol=1e-5, rtol=1e-4)


def test_an_adapter_whose_person_took_consent_back_is_refused(
    runs: Path, make_talker: Callable[..., Talker], caplog: pytest.LogCaptureFixture
) -> None:
    folder = runs / "one/adapters/anna"
    record = folder / "consent.yaml"
    record.write_text(f"person: anna\npurposes: [train]\ngiven: {date.today()}\n")
    with caplog.at_level(logging.WARNING):
        use_adapters(make_talker(adapter=None), {str(folder): 1.0})
    assert "consent does not cover 'generate'" in caplog.text
    record.write_text(record.read_text() + f"revoked: {date.today()}\n")
    with pytest.raises(ConfigurationError, match="the person has taken consent back; delete it"):
        use_adapters(make_talker(adapter=None), {str(folder): 1.0})
