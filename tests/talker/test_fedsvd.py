"""FedSVD's algebra: the product stays, A's rows are orthonormal, what leaves a client is in the common factors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fedtalk.cli import main
from fedtalk.errors import ConfigurationError
from fedtalk.federation.engines.in_process import InProcess
from fedtalk.talker import fedsvd
from fedtalk.talker.adapters import Adapter, adapter_parameters
from fedtalk.talker.fedsvd import Factors, factors_of, orthonormalise, refactored
from fedtalk.talker.module import Talker
from fedtalk.training.module import copy_state


def _layers() -> list[Factors]:
    """A linear layer, a convolution, and one with fewer outputs than its rank."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"linear": ((3, 20), (11, 3)), "convolution": ((4, 2, 3, 3), (7, 4, 1, 1)), "narrow": ((4, 9), (2, 4))}
    layers = [
        Factors(name, *(torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in pair))
        for name, pair in shapes.items()
    ]
    orthonormalise(layers)
    return layers


def _product(layer: Factors) -> np.ndarray:
    return (layer.b.detach().double().flatten(1) @ layer.a.detach().double().flatten(1)).numpy()


def test_the_product_stays_and_the_factors_are_its_decomposition() -> None:
    for layer in _layers():
        before, first = _product(layer), layer.a.detach().clone()
        with refactored([layer]):
            np.testing.assert_allclose(_product(layer), before, atol=1e-5)
            a, b = (value.detach().double().flatten(1).numpy() for value in (layer.a, layer.b))
            np.testing.assert_allclose(a @ a.T, np.eye(len(a)), atol=1e-6)
            _, singular, right = np.linalg.svd(before, full_matrices=False)
            kept = min(len(a), len(singular))
            np.testing.assert_allclose(np.linalg.norm(b, axis=0)[:kept], singular[:kept], atol=1e-5)
            np.testing.assert_allclose(np.abs(np.sum(a[:kept] * right[:kept], axis=1)), 1, atol=1e-4)
            assert not torch.allclose(layer.a, first, atol=1e-2), "or nothing was turned"
        assert torch.equal(layer.a, first)


def test_what_is_sent_is_in_the_common_factors_and_as_long_as_it_was() -> None:
    layers = _layers()
    start = {layer.name: layer.b.detach().clone() for layer in layers}
    with refactored(layers) as common:
        untouched = common({layer.name: layer.b.detach().clone() for layer in layers})
        changes = {layer.name: torch.randn(layer.b.shape) for layer in layers}
        product = {}
        for layer in layers:
            with torch.no_grad():
                layer.b.add_(changes[layer.name])
            product[layer.name] = _product(layer)
        sent = common({layer.name: layer.b.detach().clone() for layer in layers})
    for layer in layers:
        torch.testing.assert_close(untouched[layer.name], start[layer.name], atol=1e-6, rtol=1e-5)
        update = sent[layer.name] - start[layer.name]
        torch.testing.assert_close(update.norm(), changes[layer.name].norm(), atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            layer.b.copy_(sent[layer.name])
        np.testing.assert_allclose(_product(layer), product[layer.name], atol=1e-5)


def test_a_plain_gradient_step_is_the_same_in_all_factors() -> None:
    """Turning commutes with it: nothing but a step along the axes can gain."""
    layer = _layers()[0]
    target, start = torch.randn(11, 20), layer.b.detach().clone()

    def gradient() -> torch.Tensor:
        loss = (layer.b @ layer.a - target).square().sum()
        return torch.autograd.grad(loss, layer.b)[0]

    expected = start - 0.01 * gradient()
    with refactored([layer]) as common:
        sent = common({layer.name: layer.b.detach() - 0.01 * gradient()})
    torch.testing.assert_close(sent[layer.name], expected, atol=1e-5, rtol=1e-5)


def test_after_an_error_a_is_the_common_one() -> None:
    layers = _layers()
    first = [layer.a.detach().clone() for layer in layers]
    with pytest.raises(OSError, match="gone"), refactored(layers):
        raise OSError("gone")
    assert all(torch.equal(layer.a, a) for layer, a in zip(layers, first, strict=True))


def _plan(backbone: Path, folder: Path, keep_optimizer: bool = False) -> Path:
    talker = {
        "backbone": str(backbone), "window": 4, "stride": 4, "sampling_steps": 2,
        "adapter": {"rank": 2, "alpha": 4.0, "aggregation": "fedsvd", "targets": ["to_v", "conv1"]},
    }  # fmt: skip
    plan = {
        "model": {"class_path": "fedtalk.talker.module.Talker", "init_args": talker},
        "data": {
            "class_path": "fedtalk.data.synthtalk_data.SynthTalkData",
            "init_args": {"speakers": 3, "clips": 1, "held_out": 1, "frames": 8, "size": 32},
        },
        "trainer": {
            "rounds": 3, "validate_every": 0, "accelerator": "cpu", "threads": 1, "default_root_dir": str(folder),
            "cache_dir": str(folder.parent / "cache"),
            "local": {"steps": 2, "batch_size": 2, "learning_rate": 1e-2, "keep_optimizer": keep_optimizer},
            "cohort": {"class_path": "fedtalk.federation.cohort.PoissonCohort", "init_args": {"rate": 1.0}},
        },
    }  # fmt: skip
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["server"]["state"]


def test_killed_and_resumed_gives_the_same_bits_and_a_turns_from_round_to_round(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned, turning = [], fedsvd.turn

    def watched(b: torch.Tensor) -> torch.Tensor:
        turned.append(turning(b))
        return turned[-1]

    monkeypatch.setattr(fedsvd, "turn", watched)
    assert main(["fit", "--config", str(_plan(tiny_backbone, tmp_path / "whole"))]) == 0
    layers = len(turned) // 9  # three clients, three rounds
    assert all(torch.equal(one, other) for one, other in zip(turned[:layers], turned[layers : 2 * layers], strict=True))
    assert any(not torch.allclose(a.abs(), b.abs()) for a, b in zip(turned[:layers], turned[-layers:], strict=True))

    round_of = InProcess.run_round

    def stopped(self: InProcess, round_number: int, *arguments: object) -> object:
        if round_number == 2:
            raise KeyboardInterrupt
        return round_of(self, round_number, *arguments)

    plan = _plan(tiny_backbone, tmp_path / "killed")
    with monkeypatch.context() as killed:
        killed.setattr(InProcess, "run_round", stopped)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            raise SystemExit(main(["fit", "--config", str(plan)]))
    assert main(["fit", "--config", str(plan), "--ckpt_path", "last"]) == 0
    whole, resumed = _state(tmp_path / "whole"), _state(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3


def test_optimizers_are_not_kept_for_factors_that_change(
    tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(_plan(tiny_backbone, tmp_path / "run", keep_optimizer=True))]) == 1
    assert "trainer.local.keep_optimizer: clients train other factors in every round" in capsys.readouterr().err


def test_more_ranks_than_inputs_are_refused() -> None:
    layer = Factors("small", torch.nn.Parameter(torch.randn(5, 4)), torch.nn.Parameter(torch.randn(6, 5)))
    with pytest.raises(ConfigurationError, match=r"adapter\.rank: with fedsvd expected at most 4, the inputs of small"):
        orthonormalise([layer])


def test_a_talkers_output_stays_while_its_factors_turn(
    make_talker: Callable[..., Talker], randomise: Callable, prepared: list
) -> None:
    talker = make_talker(adapter=Adapter(rank=2, alpha=4.0, aggregation="fedsvd")).eval()
    assert all(".lora_B." in name for name in talker.exchanged_parameters())
    assert {f"unet.{layer.name}" for layer in factors_of(adapter_parameters(talker.backbone.denoiser.unet))} == set(
        talker.exchanged_parameters()
    )
    with torch.no_grad():
        for value in talker.exchanged_parameters().values():
            value.copy_(0.1 * torch.randn(value.shape))
    batch = talker.draw_batch(prepared, 2, torch.Generator().manual_seed(0))
    start = copy_state(talker.exchanged_parameters())
    with torch.no_grad():
        before = talker.predict_windows(batch).output_BFChw
        with talker.local_form() as common:
            assert any(not torch.equal(start[name], value) for name, value in talker.exchanged_parameters().items())
            torch.testing.assert_close(talker.predict_windows(batch).output_BFChw, before, atol=1e-4, rtol=1e-4)
            sent = common(copy_state(talker.exchanged_parameters()))
    for name, value in sent.items():
        torch.testing.assert_close(value, start[name], atol=1e-6, rtol=1e-5)
