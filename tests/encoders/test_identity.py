"""The identity encoder: what it tells apart, what it overlooks, and its file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fedtalk.data.pixels import to_unit
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.encoders.identity import IdentityEncoder, IdentityModule, equal_error_rate
from fedtalk.encoders.sync import SyncScorer
from fedtalk.errors import ArtifactError

TINY = (8, 8, 16, 16)


def _frames(group: str, index: int, take: int, count: int = 8) -> Tensor:
    clip = make_clip(Speaker.draw(0, group, index), take, count, 64)
    return to_unit(torch.from_numpy(clip.frames).permute(0, 3, 1, 2))


@pytest.fixture(scope="module")
def shipped() -> IdentityEncoder:
    return IdentityEncoder.shipped()


@pytest.fixture(scope="module")
def people() -> Tensor:
    """(10, 2, 8, 3, 64, 64): ten people, five public and five private, whom no training saw; two takes each."""
    numbers = [("public", 3000 + i) for i in range(5)] + [("private", 3000 + i) for i in range(5)]
    return torch.stack([torch.stack([_frames(*number, take) for take in range(2)]) for number in numbers])


def _embed(encoder: IdentityEncoder, frames: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3])


def test_embeddings_have_unit_length_at_any_size(shipped: IdentityEncoder, people: Tensor) -> None:
    frames = people[0, 0]
    embedded = _embed(shipped, frames)
    assert embedded.shape == (8, 128)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(8), atol=1e-5)
    large = torch.nn.functional.interpolate(frames, scale_factor=3, mode="bicubic").clamp(-1, 1)
    assert (_embed(shipped, large) * embedded).sum(1).min() > 0.9


def test_unseen_people_are_told_apart_from_another_take(shipped: IdentityEncoder, people: Tensor) -> None:
    embedded = _embed(shipped, people)
    cosine = torch.einsum("pfd,qgd->pqfg", embedded[:, 0], embedded[:, 1]).mean((2, 3))
    assert cosine.argmax(1).tolist() == list(range(10))
    assert cosine.diagonal().min() > 0.8
    assert cosine[~torch.eye(10, dtype=torch.bool)].max() < 0.7


def test_a_soft_frame_is_still_the_same_person(shipped: IdentityEncoder, people: Tensor) -> None:
    frames = people[:, 0, :4]
    soft = torch.from_numpy(gaussian_filter(frames.numpy(), (0, 0, 0, 1.0, 1.0)))
    assert (_embed(shipped, soft) * _embed(shipped, frames)).sum(-1).mean() > 0.85


def test_the_background_says_nothing(shipped: IdentityEncoder, people: Tensor) -> None:
    frames = people[0, 0]
    grid = (torch.arange(64) + 0.5) / 64
    outside = ((grid[None] - 0.5) / 0.40) ** 2 + ((grid[:, None] - 0.48) / 0.48) ** 2 > 1
    assert outside.float().mean() > 0.3
    changed = torch.where(outside, torch.rand(frames.shape, generator=torch.Generator().manual_seed(0)), frames)
    assert torch.allclose(_embed(shipped, changed), _embed(shipped, frames), atol=1e-6)
    changed[..., 24:40, 24:40] = 1.0
    assert not torch.allclose(_embed(shipped, changed), _embed(shipped, frames), atol=1e-2)


def test_its_gradient_leads_towards_the_person(shipped: IdentityEncoder, people: Tensor) -> None:
    target = _embed(shipped, people[1, 0])[:1]
    picture = people[0, 0, :1].clone().requires_grad_(True)
    before = float((shipped(picture.detach()) @ target.T).detach())
    for _ in range(10):
        cosine = (shipped(picture) @ target.T).squeeze()
        (gradient,) = torch.autograd.grad(cosine, picture)
        picture = (picture + 0.5 * gradient / gradient.norm()).detach().requires_grad_(True)
    assert float((shipped(picture.detach()) @ target.T).detach()) > before + 0.05


def test_frames_that_are_none_are_refused(shipped: IdentityEncoder) -> None:
    for frames in (torch.zeros(3, 64, 64), torch.zeros(1, 64, 64, 3), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with pytest.raises(ArtifactError, match=r"expected \(N, 3, H, W\) float"):
            shipped(frames)


def test_the_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    module = IdentityModule(TINY, 16, temperature=0.2)
    frames, person = torch.rand(7, 3, 64, 64) * 2 - 1, torch.tensor([0, 0, 0, 1, 1, 2, 2])
    with torch.no_grad():
        loss = float(module.loss_terms({"frames": frames, "person": person})["contrast"])
        z = module.network(frames).double().numpy()
    total = 0.0
    for i in range(7):
        others = [a for a in range(7) if a != i]
        positives = [p for p in others if person[p] == person[i]]
        below = sum(np.exp(z[i] @ z[a] / 0.2) for a in others)
        total -= np.mean([np.log(np.exp(z[i] @ z[p] / 0.2) / below) for p in positives])
    assert loss == pytest.approx(total / 7, rel=1e-4)


def test_training_learns_people_and_draws_are_repeatable() -> None:
    torch.manual_seed(0)
    module = IdentityModule(TINY, 16)
    clips = [
        module.prepare_clip(make_clip(Speaker.draw(0, "public", index), take, 8, 64))
        for index in range(6)
        for take in range(2)
    ]
    one = module.draw_batch(clips, 24, torch.Generator().manual_seed(5))
    again = module.draw_batch(clips, 24, torch.Generator().manual_seed(5))
    assert torch.equal(one["frames"], again["frames"]) and torch.equal(one["person"], again["person"])
    assert one["frames"].shape == (24, 3, 64, 64)
    assert one["person"].bincount().tolist() == [4] * 6

    before = module.held_out_metrics(clips, torch.Generator())
    optimizer = torch.optim.AdamW(module.exchanged_parameters().values(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        optimizer.zero_grad()
        module.training_step(module.draw_batch(clips, 24, generator))["loss"].backward()
        optimizer.step()
    after = module.held_out_metrics(clips, torch.Generator())
    assert after["equal_error_rate"] < 0.2
    assert after["within_cosine"] - after["across_cosine"] > before["within_cosine"] - before["across_cosine"] + 0.2


def test_equal_error_rate_against_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    within, across = torch.randn(400, generator=generator) + 1.5, torch.randn(700, generator=generator)
    thresholds = torch.linspace(-4, 6, 20_001)
    missed = torch.tensor([(within < t).float().mean() for t in thresholds])
    accepted = torch.tensor([(across >= t).float().mean() for t in thresholds])
    best = (missed - accepted).abs().argmin()
    assert equal_error_rate(within, across) == pytest.approx(float(missed[best] + accepted[best]) / 2, abs=2e-3)
    assert equal_error_rate(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.2])) == 0.0


def test_saved_and_read_it_answers_the_same(tmp_path: Path, people: Tensor) -> None:
    torch.manual_seed(0)
    encoder = IdentityEncoder(TINY, 16).eval()
    encoder.save(tmp_path / "new" / "tiny.safetensors")
    read = IdentityEncoder.load(tmp_path / "new" / "tiny.safetensors")
    assert read.config == {"channels": list(TINY), "dimension": 16}
    assert torch.allclose(_embed(read, people[0, 0]), _embed(encoder, people[0, 0]), atol=5e-3)  # 16-bit weights
    assert not read.training


def test_bad_files_are_named_and_explained(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    with pytest.raises(ArtifactError, match="no such file"):
        IdentityEncoder.load(path)
    IdentityEncoder(TINY, 16).save(path)
    with pytest.raises(ArtifactError, match="expected a network of kind 'sync', got 'identity'"):
        SyncScorer.load(path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            IdentityEncoder.load(path)
    path.write_bytes(whole)
    weights = load_file(path)
    save_file(weights, path)
    with pytest.raises(ArtifactError, match="got None"):
        IdentityEncoder.load(path)


def test_a_package_without_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedtalk.encoders.shipped.resources.files", lambda _: tmp_path)
    with pytest.raises(ArtifactError, match=r"holds no identity.safetensors"):
        IdentityEncoder.shipped()


def test_what_ships_is_small() -> None:
    for kind in ("identity", "sync", "mouth_probe"):
        assert len((resources.files("fedtalk.weights") / f"{kind}.safetensors").read_bytes()) < 1_000_000
