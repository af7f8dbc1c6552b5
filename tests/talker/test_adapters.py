"""LoRA's algebra, peft's format, and what aggregation of factors means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNetMotionModel
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from fedtalk.callbacks.aggregation import FedAvg
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.federation.vector import flatten
from fedtalk.privacy.sealing import PairwiseSealing
from fedtalk.talker.adapters import Adapter, adapter_parameters, add_adapter, load_adapter, save_adapter
from fedtalk.talker.module import Talker

MakeTalker = Callable[..., Talker]


def _adapted(talker: Talker) -> dict[str, nn.Module]:
    return {name: m for name, m in talker.backbone.denoiser.unet.named_modules() if hasattr(m, "lora_A")}


def _input_of(base: nn.Module) -> torch.Tensor:
    shape = (2, base.in_channels, 5, 5) if isinstance(base, nn.Conv2d) else (2, base.in_features)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_an_adapted_layer_is_w_plus_scale_b_a(make_talker: MakeTalker, randomise: Callable) -> None:
    """Every layer, linear and convolutional, against a plain layer with the weight W + alpha / rank * B A."""
    talker = make_talker(adapter=Adapter(rank=2, alpha=3.0))
    randomise(talker)
    layers = _adapted(talker)
    assert any(isinstance(m.base_layer, nn.Conv2d) for m in layers.values())
    assert any(isinstance(m.base_layer, nn.Linear) for m in layers.values())
    for name, layer in layers.items():
        base = layer.base_layer
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        x = _input_of(base)
        with torch.no_grad():
            if isinstance(base, nn.Conv2d):
                weight = base.weight + 3.0 / 2 * torch.einsum("or,rikl->oikl", b[:, :, 0, 0], a)
                expected = nn.functional.conv2d(x, weight, base.bias, base.stride, base.padding)
            else:
                expected = nn.functional.linear(x, base.weight + 3.0 / 2 * (b @ a), base.bias)
            got = layer(x)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        assert (got - base(x)).abs().max() > 1e-3


def test_a_fresh_adapter_changes_nothing(tiny_backbone: Path, make_talker: MakeTalker, prepared: list) -> None:
    with_adapter, without = make_talker(), Talker(str(tiny_backbone), window=4, stride=2)
    batch = with_adapter.draw_batch(prepared, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (talker.eval().predict_windows(batch).output_BFChw for talker in (with_adapter, without))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_clients_start_from_one_adapter_whatever_was_drawn_before(make_talker: MakeTalker) -> None:
    torch.manual_seed(1)
    one = make_talker()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = make_talker()
    for name, value in one.exchanged_parameters().items():
        assert torch.equal(value, other.exchanged_parameters()[name])
    assert any(value.abs().max() > 0 for name, value in one.exchanged_parameters().items() if "lora_A" in name)
    del before


def test_the_adapter_is_all_that_a_round_exchanges(make_talker: MakeTalker) -> None:
    both, only_b = make_talker(), make_talker(adapter=Adapter(rank=2, aggregation="freeze_a"))
    assert all(".lora_" in name for name in both.exchanged_parameters())
    assert {name.split(".lora_")[1][0] for name in both.exchanged_parameters()} == {"A", "B"}
    assert {name.split(".lora_")[1][0] for name in only_b.exchanged_parameters()} == {"B"}
    trainable = {name for name, p in both.named_parameters() if p.requires_grad}
    assert len(trainable) == len(both.exchanged_parameters())
    targeted = {name.rsplit(".lora_", 1)[0].rsplit(".", 1)[-1] for name in both.exchanged_parameters()}
    assert {"to_q", "to_k", "to_v", "conv1", "conv2"} <= targeted
    assert not targeted & {"proj_in", "proj_out"}


def test_peft_itself_loads_the_adapter(
    make_talker: MakeTalker, randomise: Callable, tiny_backbone: Path, tmp_path: Path
) -> None:
    talker = make_talker(adapter=Adapter(rank=3, alpha=5.0))
    randomise(talker)
    talker.save_adapter(tmp_path / "anna")
    plain = UNetMotionModel.from_pretrained(tiny_backbone / "unet", torch_dtype=torch.float32).eval()
    g = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, plain.config.in_channels, 2, 4, 4, generator=g), 300, torch.randn(2, 7, 32, generator=g)
    with torch.no_grad():
        untouched = plain(*inputs).sample
        loaded = PeftModel.from_pretrained(plain, str(tmp_path / "anna")).eval()
        theirs, ours = loaded(*inputs).sample, talker.backbone.denoiser.unet(*inputs).sample
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
    assert (theirs - untouched).abs().max() > 1e-2


def test_saved_and_loaded_is_the_same_also_without_an_adapter_before(
    make_talker: MakeTalker, randomise: Callable, tmp_path: Path
) -> None:
    talker = make_talker()
    randomise(talker)
    talker.save_adapter(tmp_path / "anna")
    fresh, bare = make_talker(), make_talker(adapter=None)
    for other in (fresh, bare):
        other.load_adapter(tmp_path / "anna")
        assert other.adapter is not None and (other.adapter.rank, other.adapter.alpha) == (2, 4.0)
        for name, value in adapter_parameters(talker.backbone.denoiser.unet).items():
            assert torch.equal(value, adapter_parameters(other.backbone.denoiser.unet)[name])
    assert not any(p.requires_grad for n, p in bare.backbone.named_parameters() if ".lora_" not in n)


def test_an_adapter_of_another_backbone_is_refused(
    make_talker: MakeTalker, tiny_backbone: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    make_talker().save_adapter(tmp_path / "anna")
    other = tmp_path / "other"
    shutil.copytree(tiny_backbone, other)
    weights = load_file(other / "conditioning.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 0.5}, other / "conditioning.safetensors")
    talker = make_talker(backbone=str(other))
    with pytest.raises(ArtifactError, match=f"trained on backbone {make_talker().fingerprint()}, this is backbone"):
        talker.load_adapter(tmp_path / "anna")


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "fedtalk.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_adapter_is_a_clear_error(make_talker: MakeTalker, tmp_path: Path, file: str, damage: str) -> None:
    talker = make_talker()
    talker.save_adapter(tmp_path / "anna")
    path = tmp_path / "anna" / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"anna can't be read .*expected a folder with adapter_config\.json"):
        talker.load_adapter(tmp_path / "anna")


def test_an_adapter_of_another_rank_is_refused(make_talker: MakeTalker, tmp_path: Path) -> None:
    make_talker(adapter=Adapter(rank=3)).save_adapter(tmp_path / "anna")
    with pytest.raises(ConfigurationError, match=r"of rank 3, the config's has .* of rank 2"):
        make_talker().load_adapter(tmp_path / "anna")


def test_adapter_settings_name_their_key(make_talker: MakeTalker) -> None:
    with pytest.raises(ConfigurationError, match=r"adapter\.rank: expected a whole number of at least 1, got 0"):
        Adapter(rank=0)
    with pytest.raises(ConfigurationError, match=r"adapter\.aggregation: .*'flora'.*stacking, SVD"):
        Adapter(aggregation="flora")
    with pytest.raises(ConfigurationError, match=r"adapter\.targets \['no_such_layer'\]"):
        make_talker(adapter=Adapter(targets=["no_such_layer"]))


def test_the_config_on_disk_is_plain_json(make_talker: MakeTalker, tmp_path: Path) -> None:
    talker = make_talker()
    talker.save_adapter(tmp_path / "anna")
    config = json.loads((tmp_path / "anna" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 4.0)
    origin = json.loads((tmp_path / "anna" / "fedtalk.json").read_text())
    assert origin == {"backbone": talker.fingerprint(), "aggregation": "factors"}


# What aggregation makes of the factors


def _aggregate(states: list[dict[str, torch.Tensor]], start: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Through weights, seals, sum and server, as a round does; equal weights."""
    server = FedAvg().build_server(start)
    names = [f"client-{index}" for index in range(len(states))]
    sealing = PairwiseSealing(0, names)
    updates = [
        sealing.seal(name, np.append(flatten({key: state[key] - start[key] for key in start}), 1.0))
        for name, state in zip(names, states, strict=True)
    ]
    server.step(sealing.open_sum(updates))
    return server.state


def _product(b: torch.Tensor, a: torch.Tensor) -> np.ndarray:
    return b.double().flatten(1).numpy() @ a.double().flatten(1).numpy()


@pytest.mark.parametrize("aggregation", ["factors", "freeze_a", "fedsvd"])
def test_the_mean_of_products_is_exact_where_a_is_frozen_and_not_otherwise(
    make_talker: MakeTalker, aggregation: str
) -> None:
    talker = make_talker(adapter=Adapter(rank=2, aggregation=aggregation))
    everything = {n: p.detach().clone() for n, p in adapter_parameters(talker.backbone.denoiser.unet).items()}
    prefix = "unet."
    start = {name: value.detach().clone() for name, value in talker.exchanged_parameters().items()}
    g = torch.Generator().manual_seed(0)
    clients = [{n: v + 0.2 * torch.randn(v.shape, generator=g) for n, v in start.items()} for _ in range(3)]
    merged = _aggregate(clients, start)
    worst = 0.0
    for name in [name for name in start if "lora_B" in name]:
        a_name = name.replace("lora_B", "lora_A")
        frozen = everything[a_name.removeprefix(prefix)]
        products = [_product(state[name], state.get(a_name, frozen)) for state in clients]
        got = _product(merged[name], merged.get(a_name, frozen))
        worst = max(worst, float(np.abs(got - np.mean(products, 0)).max()))
    if aggregation != "factors":
        assert worst < 1e-6
    else:
        assert worst > 1e-2  # mean(B) mean(A) is not mean(B A), as its documentation says


def test_frozen_factors_are_identical_for_all_clients_and_untouched_by_training(
    make_talker: MakeTalker, prepared: list
) -> None:
    talker = make_talker(adapter=Adapter(rank=2, aggregation="freeze_a"))
    factors = adapter_parameters(talker.backbone.denoiser.unet)
    before = {name: value.detach().clone() for name, value in factors.items()}
    optimizer = torch.optim.AdamW(talker.exchanged_parameters().values(), lr=0.01, weight_decay=0.1)
    for step in range(2):
        optimizer.zero_grad()
        batch = talker.draw_batch(prepared, 2, torch.Generator().manual_seed(step))
        talker.training_step(batch)["loss"].backward()
        optimizer.step()
    for name, value in factors.items():
        if "lora_A" in name:
            assert torch.equal(value, before[name])
        elif "motion_modules" not in name:  # the tiny network's are silent, and so get no gradient
            assert not torch.equal(value, before[name])
    sizes = [sum(p.numel() for p in t.exchanged_parameters().values()) for t in (talker, make_talker())]
    assert sizes[0] < 0.7 * sizes[1]  # and less travels


def test_a_whole_talker_without_adapter_has_none_to_save(make_talker: MakeTalker, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no adapter to save"):
        make_talker(adapter=None).save_adapter(tmp_path)


def test_adding_an_adapter_freezes_the_network(tiny_backbone: Path) -> None:
    unet = UNetMotionModel.from_pretrained(tiny_backbone / "unet", torch_dtype=torch.float32)
    add_adapter(unet, Adapter(rank=2))
    assert {".lora_" in name for name, p in unet.named_parameters() if p.requires_grad} == {True}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """An adapter of two small factors, on disk."""
    factors = {f"to_q.lora_{factor}.default.weight": torch.ones(2, 3) for factor in "AB"}
    save_adapter(tmp_path, factors, Adapter(rank=2), "b")
    assert load_adapter(tmp_path, "b")[0] == Adapter(rank=2, targets=sorted(Adapter().targets))
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"use_rslora": True}, "sets use_rslora to True; expected plain LoRA"),
        ({"use_dora": True}, "use_dora"),
        ({"alpha_pattern": {"to_q": 64}}, "alpha_pattern"),
        ({"rank_pattern": {"to_q": 4}}, "rank_pattern"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"a_setting_of_next_year": 3}, "a_setting_of_next_year"),
        ({"target_modules": "to_q"}, "expected a list of names of layers, got 'to_q'"),
        ({"target_modules": [1]}, "expected a list of names"),
        ({"r": "8"}, "expected a whole number of at least 1, got '8'"),
        ({"r": True}, "got True"),
        ({"lora_alpha": "16"}, "adapter.alpha: expected a positive number, got '16'"),
        ({"lora_alpha": float("nan")}, "adapter.alpha"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(stored: Path, setting: dict, said: str) -> None:
    path = stored / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **setting}))
    with pytest.raises(ArtifactError, match=said):
        load_adapter(stored, "b")


@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe{\x00}\x00", b"3", b'{"r": 8}', b'"text"', b"null"])
@pytest.mark.parametrize("name", ["adapter_config.json", "fedtalk.json"])
def test_any_other_content_is_one_line(stored: Path, name: str, content: bytes) -> None:
    (stored / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="can't be read"):
        load_adapter(stored, "b")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(stored: Path, value: float) -> None:
    path = stored / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path)
    with pytest.raises(ArtifactError, match=f"{name} holds values that are no finite numbers"):
        load_adapter(stored, "b")


def test_what_is_not_shared_is_kept_and_all_of_it_is_trained(make_talker: MakeTalker) -> None:
    """FedPer's split: the factors at the layers that read speech travel, the others stay."""
    whole, split = make_talker(), make_talker(adapter=Adapter(rank=2, shared=["attn2"]))
    exchanged, kept = split.exchanged_parameters(), split.kept_parameters()
    assert exchanged.keys() | kept.keys() == whole.exchanged_parameters().keys() and not exchanged.keys() & kept.keys()
    assert all("attn2" in name for name in exchanged) and not any("attn2" in name for name in kept)
    assert exchanged and kept and not whole.kept_parameters()


@pytest.mark.parametrize(
    "wrong", [{"shared": []}, {"shared": ["no_such"]}, {"shared": ["attn2"], "aggregation": "fedsvd"}], ids=repr
)
def test_a_split_that_shares_nothing_is_refused(make_talker: MakeTalker, wrong: dict) -> None:
    with pytest.raises(ConfigurationError, match=r"adapter\.shared"):
        make_talker(adapter=Adapter(rank=2, **wrong))
