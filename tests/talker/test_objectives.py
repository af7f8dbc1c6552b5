"""Terms of the objective: against loops, zero where they should be, gradients where they should go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.encoders import shipped
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.talker import objectives
from fedtalk.talker.module import Talker
from fedtalk.talker.objectives import (
    DiffusionLoss,
    IdentityLoss,
    Objective,
    PerceptualLoss,
    Prediction,
    SyncLoss,
    TemporalDenoisingConsistency,
)


def _decode(latents: torch.Tensor) -> torch.Tensor:
    """(N, 3, 16, 16) latents as 64 px frames: a decoder that is differentiable and hides nothing."""
    return torch.nn.functional.interpolate(torch.tanh(latents), scale_factor=4, mode="bilinear")


@pytest.fixture
def prediction() -> Prediction:
    """Two windows of six frames, nothing of which is right."""
    g = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, 6, 3, 16, 16, generator=g) for _ in range(6)]
    points = torch.tensor([0.5, 0.7]).expand(2, 6, 2)
    eyes = torch.tensor([[0.35, 0.42], [0.65, 0.42]]).expand(2, 6, 2, 2)
    weight = 0.1 + torch.rand(2, 6, 1, 16, 16, generator=g)
    return Prediction(
        drawn[0].requires_grad_(), drawn[1], drawn[2], drawn[0] * 1.0, drawn[4], drawn[5].requires_grad_(), weight,
        torch.tensor([0.9, 0.3]), "v_prediction", torch.randn(2, 3, 16, 16, generator=g), _decode,
        torch.randn(2, 6, 20, 64, generator=g), points, eyes, torch.tensor([0.5, 1.0, 1.5]).expand(2, 3),
    )  # fmt: skip


def _perfect(prediction: Prediction) -> Prediction:
    return replace(
        prediction,
        output_BFChw=prediction.target_BFChw,
        clean_hat_BFChw=prediction.clean_BFChw,
        noise_hat_BFChw=prediction.noise_BFChw,
    )


def test_tdc_is_the_papers_equation(prediction: Prediction) -> None:
    """mean |(eps_hat[f+1] - eps_hat[f]) - (eps[f+1] - eps[f])|, one number after the other."""
    guess, truth = (x.detach().numpy() for x in (prediction.noise_hat_BFChw, prediction.noise_BFChw))
    total, count = 0.0, 0
    for window in range(2):
        for frame in range(5):
            for cell in np.ndindex(3, 16, 16):
                step = guess[(window, frame + 1, *cell)] - guess[(window, frame, *cell)]
                true_step = truth[(window, frame + 1, *cell)] - truth[(window, frame, *cell)]
                total, count = total + abs(float(step) - float(true_step)), count + 1
    got = TemporalDenoisingConsistency()(prediction)
    assert float(got.detach()) == pytest.approx(total / count, rel=1e-5)


def test_tdc_forgives_what_all_frames_share_and_nothing_else(prediction: Prediction) -> None:
    term = TemporalDenoisingConsistency()
    offset = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    shifted = replace(prediction, noise_hat_BFChw=prediction.noise_BFChw + offset)
    assert float(term(shifted)) == pytest.approx(0.0, abs=1e-6)
    flickering = prediction.noise_BFChw.clone()
    flickering[:, ::2] += 1.0
    assert float(term(replace(prediction, noise_hat_BFChw=flickering))) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_the_diffusion_loss_is_a_weighted_mean_of_squares(prediction: Prediction, kind: str) -> None:
    prediction = replace(prediction, kind=kind)
    squares = (prediction.output_BFChw - prediction.target_BFChw).detach().double().numpy() ** 2
    weight = prediction.weight_BF1hw.double().numpy()
    expected = []
    for window, signal in enumerate((0.9, 0.3)):
        scale = 1 / (1 - signal**2) if kind == "sample" else 1.0  # as the velocity it stands for
        expected.append((squares[window] * weight[window]).mean() * scale)
    assert float(DiffusionLoss()(prediction).detach()) == pytest.approx(np.mean(expected), rel=1e-5)


def test_channels_count_by_what_they_change_in_the_picture(prediction: Prediction) -> None:
    squares = (prediction.output_BFChw - prediction.target_BFChw).detach().double().square() * prediction.weight_BF1hw
    by_channel = squares.mean((0, 1, 3, 4))  # channels of 0.5, 1 and 1.5
    plain = float(DiffusionLoss()(prediction).detach())
    assert (
        float(DiffusionLoss(visible=0)(prediction).detach())
        == plain
        == pytest.approx(float(by_channel.mean()), rel=1e-5)
    )
    once = float((by_channel * torch.tensor([0.5, 1.0, 1.5])).mean())
    assert float(DiffusionLoss(visible=1)(prediction).detach()) == pytest.approx(once, rel=1e-5)
    pixels = float((by_channel * torch.tensor([0.25, 1.0, 2.25])).sum() / 3.5)
    assert float(DiffusionLoss(visible=2)(prediction).detach()) == pytest.approx(pixels, rel=1e-5)


def test_clean_answers_count_at_most_tenfold(prediction: Prediction) -> None:
    nearly_clean = replace(prediction, kind="sample", signal_B=torch.tensor([0.9999, 0.9999]))
    plain = replace(nearly_clean, kind="epsilon")
    ratio = DiffusionLoss()(nearly_clean) / DiffusionLoss()(plain)
    assert float(ratio.detach()) == pytest.approx(10.0, rel=1e-4)


@pytest.mark.parametrize("term", [DiffusionLoss(), TemporalDenoisingConsistency(), PerceptualLoss()])
def test_a_perfect_prediction_costs_nothing(prediction: Prediction, term: Objective) -> None:
    assert float(term(prediction).detach()) > 0.01
    assert float(term(_perfect(prediction))) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("build", [PerceptualLoss, IdentityLoss, SyncLoss])
def test_terms_on_frames_can_be_descended(prediction: Prediction, build: Callable[[], Objective]) -> None:
    """A small step against the gradient lowers the term: it reaches the latents through decoder and network."""
    term = build()
    latents = prediction.clean_hat_BFChw.detach().clone().requires_grad_()
    before = term(replace(prediction, clean_hat_BFChw=latents))
    (gradient,) = torch.autograd.grad(before, latents)
    assert gradient.norm() > 1e-8
    moved = latents.detach() - 0.02 / gradient.norm() * gradient * latents.numel() ** 0.5
    after = term(replace(prediction, clean_hat_BFChw=moved))
    assert float(after) < float(before.detach())


@pytest.mark.parametrize("build", [PerceptualLoss, IdentityLoss, SyncLoss])
def test_terms_on_frames_fade_with_the_signal(prediction: Prediction, build: Callable[[], Objective]) -> None:
    """At pure noise nothing sharp can be asked for; each window counts by its own signal."""
    term = build()
    pure_noise = replace(prediction, signal_B=torch.zeros(2))
    assert float(term(pure_noise).detach()) == 0.0
    one = float(term(replace(prediction, signal_B=torch.tensor([1.0, 0.0]))).detach())
    other = float(term(replace(prediction, signal_B=torch.tensor([0.0, 1.0]))).detach())
    half = float(term(replace(prediction, signal_B=torch.tensor([0.5, 0.25]))).detach())
    assert half == pytest.approx(0.5 * one + 0.25 * other, rel=1e-4)


def test_identity_is_one_minus_the_cosine_with_the_reference(prediction: Prediction) -> None:
    term = IdentityLoss()
    encoder = term.encoder
    frames = _decode(prediction.clean_hat_BFChw.detach().flatten(0, 1)).unflatten(0, (2, 6))
    references = _decode(prediction.reference_BChw)
    losses = []
    for window, signal in enumerate((0.9, 0.3)):
        target = encoder(references[window : window + 1])[0]
        cosines = [float(torch.dot(encoder(frame[None])[0], target).detach()) for frame in frames[window]]
        losses.append(signal * np.mean([1 - cosine for cosine in cosines]))
    assert float(term(prediction).detach()) == pytest.approx(np.mean(losses), abs=1e-5)
    same = replace(prediction, clean_hat_BFChw=prediction.reference_BChw[:, None].expand(-1, 6, -1, -1, -1))
    assert float(term(same)) == pytest.approx(0.0, abs=1e-5)


def test_perceptual_is_an_average_over_a_pyramid(prediction: Prediction) -> None:
    prediction = replace(prediction, signal_B=torch.ones(2))
    guess = prediction.frames_hat.detach().numpy().reshape(12, 3, 64, 64)
    difference = guess - prediction.frames_true.numpy().reshape(12, 3, 64, 64)
    total = 0.0
    for _ in range(3):
        total += np.abs(difference).mean() + np.abs(np.diff(difference, axis=-1)).mean()
        total += np.abs(np.diff(difference, axis=-2)).mean()
        n, c, h, w = difference.shape
        difference = difference.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
    assert float(PerceptualLoss()(prediction).detach()) == pytest.approx(total / 3, rel=1e-4)


def test_sync_hears_the_audio_and_sees_the_mouth(prediction: Prediction) -> None:
    term = SyncLoss()
    base = float(term(prediction).detach())
    assert abs(base - float(term(replace(prediction, windows_BFTD=-prediction.windows_BFTD)).detach())) > 1e-4
    assert abs(base - float(term(replace(prediction, clean_hat_BFChw=prediction.clean_BFChw)).detach())) > 1e-4


def test_sync_names_features_that_it_cant_hear(prediction: Prediction) -> None:
    with pytest.raises(ConfigurationError, match=r"objective sync: .*needs mel features .*got \(10, 384\)"):
        SyncLoss()(replace(prediction, windows_BFTD=torch.zeros(2, 6, 10, 384)))


@pytest.mark.parametrize("build", [IdentityLoss, SyncLoss])
def test_a_term_without_its_network_is_an_error_and_never_absent(
    build: Callable[[], Objective], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    with pytest.raises(ArtifactError, match=rf"the package holds no {build.name}\.safetensors"):  # type: ignore[attr-defined]
        build()


@pytest.mark.parametrize("name", ["DiffusionLoss", "TemporalDenoisingConsistency", "PerceptualLoss"])
@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_term_is_off_by_leaving_it_out(name: str, weight: float) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a weight above 0, got .*leave it out"):
        getattr(objectives, name)(weight=weight)


def test_terms_are_off_unless_named(make_talker: Callable[..., Talker], prepared: list) -> None:
    batch = make_talker().draw_batch(prepared, 2, torch.Generator().manual_seed(0))
    assert set(make_talker().loss_terms(batch)) == {"diffusion", "tdc"}
    assert set(make_talker(objectives=[DiffusionLoss()]).loss_terms(batch)) == {"diffusion"}
    named = make_talker(objectives=[DiffusionLoss(), PerceptualLoss(), IdentityLoss()])
    assert set(named.loss_terms(batch)) == {"diffusion", "perceptual", "identity"}
    with pytest.raises(ConfigurationError, match=r"model\.objectives: expected at least one term"):
        make_talker(objectives=[])


def test_the_loss_is_the_weighted_sum_of_its_terms(make_talker: Callable[..., Talker], prepared: list) -> None:
    batch = make_talker().draw_batch(prepared, 2, torch.Generator().manual_seed(0))
    once = make_talker(objectives=[DiffusionLoss(), TemporalDenoisingConsistency(1.0)]).training_step(batch)
    twice = make_talker(objectives=[DiffusionLoss(2.0), TemporalDenoisingConsistency(0.5)]).training_step(batch)
    assert float(once["loss"].detach()) == pytest.approx(float((once["diffusion"] + once["tdc"]).detach()))
    expected = float((2 * once["diffusion"] + 0.5 * once["tdc"]).detach())
    assert float(twice["loss"].detach()) == pytest.approx(expected, rel=1e-5)
