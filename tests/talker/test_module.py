"""The talker: what it trains, what it may see, what it listens to, and what it leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip, Reference
from fedtalk.data.pieces import Piece
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.errors import ConfigurationError
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.batches import heard
from fedtalk.talker.masks import around_mouth, loss_weight, lower_face
from fedtalk.talker.module import Talker
from fedtalk.talker.puppet import Puppet
from fedtalk.talker.quality import evidence
from fedtalk.talker.schedule import make_schedule

MakeTalker = Callable[..., Talker]


def _stack(stream) -> np.ndarray:
    return np.stack([frame.numpy() for frame in stream])


def _steps(talker: Talker, prepared: list, count: int = 3) -> None:
    optimizer = torch.optim.AdamW(talker.exchanged_parameters().values(), lr=0.01, weight_decay=0.1)
    talker.train()
    for step in range(count):
        optimizer.zero_grad()
        talker.training_step(talker.draw_batch(prepared, 2, torch.Generator().manual_seed(step)))["loss"].backward()
        optimizer.step()
    talker.eval()


# What training changes


def test_training_an_adapter_leaves_every_bit_of_the_backbone(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker()
    before = {name: value.clone() for name, value in talker.state_dict().items()}
    _steps(talker, prepared)
    changed = {name for name, value in talker.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".lora_" in name for name in changed)
    exchanged = {f"backbone.denoiser.{name}" for name in talker.exchanged_parameters()}
    assert changed <= exchanged
    assert all("motion_modules" in name for name in exchanged - changed)  # still silent in the tiny network
    assert talker.backbone.fingerprint() == make_talker().fingerprint()


def test_training_without_an_adapter_changes_denoiser_and_audio_encoder_but_no_codec(
    make_talker: MakeTalker, prepared: list
) -> None:
    talker = make_talker(adapter=None)
    before = {name: value.clone() for name, value in talker.state_dict().items()}
    _steps(talker, prepared)
    changed = {name for name, value in talker.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("backbone.codec") for name in changed)
    for part in ("unet.conv_in", "audio.inner"):
        assert any(name.startswith(f"backbone.denoiser.{part}") for name in changed)


def test_training_lowers_the_loss(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker(adapter=Adapter(rank=8))
    before = talker.held_out_metrics(prepared, torch.Generator().manual_seed(5))["loss"]
    _steps(talker, prepared, 12)
    after = talker.held_out_metrics(prepared, torch.Generator().manual_seed(5))["loss"]
    assert after < 0.97 * before


# What it may see


def test_pixels_under_the_mask_reach_nothing_but_the_target(make_talker: MakeTalker, clips: list[Clip]) -> None:
    """Another lower face in the clip: the network's inputs are the same to the bit, only what it is to learn differs.

    How far the lips are open is told to it, as it is when a picture is made, and is the same in both.
    """
    talker, clip, other = make_talker(), clips[0], clips[1].reference(0)

    def prepare(frames: np.ndarray) -> dict:
        piece = Piece(**{**vars(clip), "frames": frames}, elsewhere=[other], sound=clip.audio)
        return talker.prepare_clip(piece)

    hidden = lower_face(clip.eyes, clip.size)[0][:, 0].numpy().astype(bool)
    painted = clip.frames.copy()
    painted[hidden] = np.random.default_rng(0).integers(0, 256, painted[hidden].shape, np.uint8)
    one, changed = prepare(clip.frames), prepare(painted)
    # Evidence of quality reaches the aggregation alone; what the puppet lacks is a target, of looks in closed form.
    for name in one.keys() - {"latents", "missing", *evidence(clip)}:
        assert torch.equal(one[name], changed[name]), name
    assert not torch.equal(one["latents"], changed["latents"])
    outside = clip.frames.copy()
    outside[~hidden] = 255 - outside[~hidden]
    assert not torch.equal(one["inside"], prepare(outside)["inside"])


def test_dubbing_does_not_see_the_lower_face_either(
    make_talker: MakeTalker, randomise: Callable, clips: list[Clip]
) -> None:
    talker, clip = make_talker(), clips[0]
    randomise(talker)
    hidden = lower_face(clip.eyes, clip.size)[0][:, 0].numpy().astype(bool)
    alpha = lower_face(clip.eyes, clip.size)[1][:, 0].numpy()
    painted = clip.frames.copy()
    painted[hidden] = 255 - painted[hidden]
    reference = clips[1].reference(0)
    one, other = (_stack(talker.dub(replace(clip, frames=f), reference)) for f in (clip.frames, painted))
    assert np.array_equal(one[alpha == 1], other[alpha == 1])  # all that is generated; the ramp blends


def test_dubbing_leaves_pixels_outside_the_region_exactly(
    make_talker: MakeTalker, randomise: Callable, clips: list[Clip]
) -> None:
    talker, clip = make_talker(), clips[0]
    randomise(talker)
    hidden = lower_face(clip.eyes, clip.size)[0][:, 0].numpy().astype(bool)
    made = _stack(talker.dub(clip, clips[1].reference(0)))
    assert made.shape == clip.frames.shape and made.dtype == np.uint8
    assert np.array_equal(made[~hidden], clip.frames[~hidden])
    assert (made[hidden] != clip.frames[hidden]).mean() > 0.5


def test_a_change_of_the_puppet_counts_around_the_mouth_and_the_puppet_elsewhere(
    make_talker: MakeTalker, randomise: Callable, clips: list[Clip]
) -> None:
    talker, clip, reference = make_talker(), clips[0], clips[1].reference(0)
    randomise(talker)
    made = _stack(talker.portrait(torch.from_numpy(clip.audio), reference, 0, clip.eyes))
    lips = heard(talker.backbone, list(talker.generation.windows(torch.from_numpy(clip.audio))))
    kept = Puppet(reference).moved(clip.eyes, lips)
    shown = around_mouth(Puppet(reference).mouths(clip.eyes), clip.eyes, clip.size)[:, 0].numpy()
    assert np.array_equal(made[shown == 0], kept[shown == 0])
    assert (made[shown == 1] != kept[shown == 1]).mean() > 0.5
    assert 0.05 < (shown == 1).mean() < (shown > 0).mean() < 0.5
    at = np.round(Puppet(reference).mouths(clip.eyes)).astype(int)
    assert all(shown[frame, y, x] == 1 for frame, (x, y) in enumerate(at))
    talker.backbone.denoiser.residual = False  # a network that draws by itself draws everything
    drawn = _stack(talker.portrait(torch.from_numpy(clip.audio), reference, 0, clip.eyes))
    assert (drawn[shown == 0] != kept[shown == 0]).mean() > 0.5


@pytest.mark.parametrize(("kind", "deviation"), [("sample", 0.3), ("v_prediction", 1.0), ("epsilon", 1.0)])
def test_sampling_starts_from_noise_that_the_network_can_account_for(
    make_talker: MakeTalker, clips: list[Clip], kind: str, deviation: float
) -> None:
    """A network that answers with the noise takes it to have a deviation of 1."""
    talker, seen = make_talker(sampling_steps=1), []
    talker.scheduler = make_schedule(kind)
    talker.backbone.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    for _ in range(4):
        for _ in talker.dub(clips[0], clips[1].reference(0), seed=len(seen)):
            pass
    first = torch.cat([latents.flatten() for latents in seen if latents.shape == seen[0].shape])
    assert float(first.std()) == pytest.approx(deviation, rel=0.1)


def test_a_piece_hears_the_sound_around_it(make_talker: MakeTalker, clips: list[Clip]) -> None:
    """The speech of a piece is that of the whole clip at the piece's frames, to its very ends."""
    talker, clip = make_talker(), clips[0]
    part = clip.window(4, 8)
    piece = Piece(**vars(part), elsewhere=[clips[1].reference(0)], sound=clip.audio, first=4)
    whole = talker.prepare_clip(clip)["windows"][4:12]
    torch.testing.assert_close(talker.prepare_clip(piece)["windows"], whole)
    assert not torch.allclose(talker.prepare_clip(part)["windows"], whole, atol=0.05)


# What a batch is made of


def test_a_batch_holds_windows_with_their_own_audio_mask_and_points(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker(dub_share=1.0)
    batch = talker.draw_batch(prepared, 24, torch.Generator().manual_seed(0))
    starts = set()
    for row in range(24):
        matches = [
            (index, start)
            for index, clip in enumerate(prepared)
            for start in range(13)
            if torch.equal(batch["latents"][row], clip["latents"][start : start + 4].float())
        ]
        ((index, start),) = matches
        starts.add((index, start))
        clip, part = prepared[index], slice(start, start + 4)
        assert torch.equal(batch["mask"][row], clip["mask"][part].float())
        which = [torch.equal(batch["reference"][row], clip["reference"][at].float()) for at in (0, 1)].index(True)
        assert torch.equal(batch["moved"][row], clip["inside"][which][part].float())
        assert torch.equal(batch["mouth"][row], clip["mouth"][part])
        assert torch.equal(batch["windows"][row], clip["windows"][part].float())
    assert len(starts) > 12


def test_references_are_a_clips_ends_and_never_from_the_window(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker()
    batch = talker.draw_batch(prepared, 60, torch.Generator().manual_seed(1))
    sources = set()
    for row in range(60):
        own = [
            index for index, clip in enumerate(prepared)
            for start in range(13) if torch.equal(batch["latents"][row], clip["latents"][start : start + 4].float())
        ]  # fmt: skip
        ends = [at for at in (0, -1) if torch.equal(batch["reference"][row], prepared[own[0]]["latents"][at].float())]
        assert len(ends) == 1
        assert not any(torch.equal(batch["reference"][row], frame) for frame in batch["latents"][row])
        sources.add(ends[0])
    assert sources == {0, -1}


@pytest.mark.parametrize("length", [5, 7, 9, 12, 16])
def test_a_short_clip_gives_references_from_outside_the_window_too(
    make_talker: MakeTalker, clips: list[Clip], length: int
) -> None:
    talker = make_talker()
    batch = talker.draw_batch([talker.prepare_clip(clips[0].window(0, length))], 100, torch.Generator().manual_seed(0))
    for reference, window in zip(batch["reference"], batch["latents"], strict=True):
        assert not any(torch.equal(reference, frame) for frame in window)


@pytest.mark.parametrize("length", [3, 4])
def test_clips_without_room_for_a_reference_are_refused(
    make_talker: MakeTalker, clips: list[Clip], length: int
) -> None:
    talker = make_talker()
    with pytest.raises(ConfigurationError, match=f"a clip has {length} frames and the training window takes 4"):
        talker.draw_batch([talker.prepare_clip(clips[0].window(0, length))], 1, torch.Generator().manual_seed(0))


def test_tasks_and_drops_come_in_their_shares(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker(dub_share=0.7, drop_audio=0.2, drop_reference=0.1, pure_noise=0.4)
    batch = talker.draw_batch(prepared, 600, torch.Generator().manual_seed(2))
    portrait = (batch["mask"] == 1).flatten(1).all(1)
    assert float(portrait.float().mean()) == pytest.approx(0.3, abs=0.08)
    moved = torch.cat([clip["moved"].flatten(0, 1) for clip in prepared]).float()
    for row in range(60):  # a portrait is drawn from nothing but the reference
        assert bool((moved == batch["moved"][row, 0]).flatten(1).all(1).any()) == bool(portrait[row])
    assert float((~batch["audio_present"]).float().mean()) == pytest.approx(0.2, abs=0.07)
    assert float((~batch["reference_present"]).float().mean()) == pytest.approx(0.1, abs=0.06)
    last = batch["timestep"] == 999
    assert float(last.float().mean()) == pytest.approx(0.4, abs=0.08)
    assert batch["timestep"].min() < 50 and batch["timestep"][~last].max() > 950
    between = torch.stack([batch["noise"][:, 0].flatten(), batch["noise"][:, 1].flatten()])
    assert float(torch.corrcoef(between)[0, 1]) == pytest.approx(0.5, abs=0.05)


def test_a_batch_comes_from_its_generator_alone(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker()
    torch.manual_seed(0)
    one = talker.draw_batch(prepared, 4, torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    same = talker.draw_batch(prepared, 4, torch.Generator().manual_seed(3))
    other = talker.draw_batch(prepared, 4, torch.Generator().manual_seed(4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["noise"], other["noise"])


def test_drawing_leaves_prepared_clips_as_they_are(make_talker: MakeTalker, prepared: list) -> None:
    before = copy.deepcopy(prepared)
    make_talker(dub_share=0.0).draw_batch(prepared, 8, torch.Generator().manual_seed(0))
    assert all(torch.equal(one[k], other[k]) for one, other in zip(before, prepared, strict=True) for k in one)


def test_errors_count_more_at_the_mouth_and_in_the_region(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker(mouth_emphasis=2.0)
    mask, mouth = prepared[0]["mask"][None].float(), prepared[0]["mouth"][None]
    weight = loss_weight(mask, mouth, talker.mouth_emphasis)
    torch.testing.assert_close(weight.mean((-1, -2)), torch.ones(1, 16, 1))
    assert weight[mask > 0.9].mean() > 2 * weight[mask < 0.1].mean() > 0
    for frame in range(16):
        x, y = (int(value * mask.shape[-1]) for value in mouth[0, frame])
        assert weight[0, frame, 0, y, x] > 0.95 * weight[0, frame].max()


# What it listens to


def _variants(talker: Talker, clip: Clip, other: Clip, reference: Reference) -> dict[str, np.ndarray]:
    return {
        "audio": _stack(talker.dub(clip, reference, 0, torch.from_numpy(other.audio))),
        "reference": _stack(talker.dub(clip, other.reference(0), 0)),
        "seed": _stack(talker.dub(clip, reference, 1)),
    }


def test_swapping_audio_reference_adapter_or_seed_changes_the_output(
    make_talker: MakeTalker, randomise: Callable, clips: list[Clip]
) -> None:
    talker, clip, other = make_talker(), clips[0], clips[2]
    randomise(talker)
    reference = clips[1].reference(0)
    base = _stack(talker.dub(clip, reference, 0))
    assert np.array_equal(base, _stack(talker.dub(clip, reference, 0)))  # and nothing else is random
    inside = lower_face(clip.eyes, clip.size)[1][:, 0].numpy() == 1
    made = _variants(talker, clip, other, reference)
    randomise(talker, 1)
    made["adapter"] = _stack(talker.dub(clip, reference, 0))
    for name, frames in made.items():
        change = np.abs(frames.astype(int) - base.astype(int))[inside]
        assert (change > 0).mean() > 0.05, name


def test_guidance_is_a_line_from_unheard_to_heard(make_talker: MakeTalker, clips: list[Clip]) -> None:
    """One sampling step ends at the estimate itself, so the latents of three weights must lie on a line."""
    audio, reference = torch.from_numpy(clips[0].audio), clips[1].reference(0)
    made = {}
    for guidance in (0.0, 1.0, 2.5):
        talker = make_talker(guidance=guidance, sampling_steps=1)
        talker.backbone.denoiser.residual = False  # what is kept of a change of the puppet is not linear
        talker.backbone.codec.decode = (
            lambda latents, known: F.interpolate(  # type: ignore[method-assign]
                latents[:, :3], clips[0].size
            )
        )
        frames = talker.portrait(audio, reference)
        made[guidance] = _stack(frames).astype(float)
    line = made[0.0] + 2.5 * (made[1.0] - made[0.0])
    inside = np.all([(frames > 0) & (frames < 255) for frames in made.values()], axis=0)
    assert inside.mean() > 0.3
    assert np.abs(made[2.5] - line)[inside].max() < 3  # grey levels; bytes are rounded before
    assert np.abs(made[1.0] - made[0.0]).max() > 0


def test_without_guidance_the_network_runs_once_a_step(make_talker: MakeTalker, clips: list[Clip]) -> None:
    counts = {}
    for guidance in (1.0, 1.5):
        talker = make_talker(guidance=guidance, sampling_steps=2)
        calls: list[int] = []
        talker.backbone.denoiser.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        list(talker.portrait(torch.from_numpy(clips[0].audio), clips[1].reference(0)))
        counts[guidance] = len(calls)
    assert counts[1.5] == 2 * counts[1.0]


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 11])
def test_any_length_comes_out_exactly(make_talker: MakeTalker, clips: list[Clip], frames: int) -> None:
    talker, clip = make_talker(), clips[0]
    reference = clips[1].reference(0)
    part = clip.window(2, frames)
    assert _stack(talker.dub(part, reference)).shape == (frames, 32, 32, 3)
    made = _stack(talker.portrait(torch.from_numpy(part.audio), reference))
    assert made.shape == (frames, 32, 32, 3) and made.dtype == np.uint8


def test_portraits_stream(make_talker: MakeTalker, clips: list[Clip]) -> None:
    """The first frame of a minute is there long before the last: the network has seen a few windows only."""
    talker = make_talker(sampling_steps=2)
    windows = 0

    def count(module: object, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal windows
        windows += len(output)

    talker.backbone.denoiser.register_forward_hook(count)
    minute = 0.1 * torch.randn(1500 * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(0))
    next(talker.portrait(minute, clips[1].reference(0)))
    assert windows <= 2 * 3 * 4  # two steps, a few groups of four windows; all would be 2 * 749


def test_sampling_puts_no_gradient_on_anything(make_talker: MakeTalker, clips: list[Clip]) -> None:
    frame = next(make_talker().dub(clips[0], clips[1].reference(0)))
    assert not frame.requires_grad


def test_reliability_lies_in_0_1_and_comes_from_its_generator(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker()
    one = talker.reliability(prepared[:1], prepared[1:2], torch.Generator().manual_seed(0))
    assert one == talker.reliability(prepared[:1], prepared[1:2], torch.Generator().manual_seed(0))
    assert one != talker.reliability(prepared[:1], prepared[1:2], torch.Generator().manual_seed(1))
    assert all(0 <= value <= 1 for value in one)
    assert not any("_encoder" in name for name, _ in talker.named_parameters())  # it measures, it is not the model


@pytest.mark.parametrize("people", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_faulty_clips_make_a_client_less_reliable(shipped: Talker, people: int) -> None:
    """The same people with and without the fault; strangers differ from clip to clip, so only other clips tell."""

    def measure(fault: str | None) -> np.ndarray:
        """Identity and stability."""
        scores = []
        for index in range(people):
            person = Speaker.draw(0, "private", 50 + index, fault)
            clips = [shipped.prepare_clip(make_clip(person, take, 16, 128)) for take in range(4)]
            scores.append(shipped.reliability(clips[3:], clips[:3], torch.Generator().manual_seed(index)))
        return np.mean(scores, axis=0)

    sound = measure(None)
    assert measure("wrong_person")[0] < sound[0] - 0.1 and measure("flicker")[1] < sound[1] - 0.1


def test_held_out_metrics_are_of_a_fixed_batch(make_talker: MakeTalker, prepared: list) -> None:
    talker = make_talker()
    one = talker.held_out_metrics(prepared, torch.Generator().manual_seed(0))
    assert one == talker.held_out_metrics(prepared, torch.Generator().manual_seed(0))
    assert set(one) == {"loss", "diffusion", "tdc", "low_noise", "middle_noise", "high_noise"}
    assert one["loss"] == pytest.approx(one["diffusion"] + one["tdc"])


# Wrong settings, wrong clips


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dub_share": 1.1}, r"model\.dub_share: expected a share in \[0, 1\], got 1.1"),
        ({"drop_audio": -0.1}, r"model\.drop_audio"),
        ({"drop_reference": 2}, r"model\.drop_reference"),
        ({"window": 1}, r"model\.window: expected 2 to 32 frames"),
        ({"window": 33}, r"model\.window"),
        ({"stride": 0}, r"model\.stride"),
        ({"stride": 5}, r"model\.stride: expected 1 to the window's 4 frames, got 5"),
        ({"sampling_steps": 0}, r"model\.sampling_steps"),
    ],
)
def test_wrong_settings_name_their_key(make_talker: MakeTalker, settings: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_talker(**settings)


def test_a_clip_of_another_size_is_refused(make_talker: MakeTalker, clips: list[Clip]) -> None:
    large = replace(clips[0], frames=clips[0].frames.repeat(2, 1).repeat(2, 2))
    with pytest.raises(ConfigurationError, match="frames are 64 px, the backbone works at 32 px"):
        make_talker().prepare_clip(large)


def test_the_cache_is_keyed_by_what_preparing_depends_on(make_talker: MakeTalker) -> None:
    talker = make_talker()
    key = talker.cache_key()
    assert make_talker(adapter=None, window=6).cache_key() == key  # settings of training do not matter
    with torch.no_grad():
        next(talker.backbone.codec.autoencoder.encoder.parameters()).add_(0.5)
    assert talker.cache_key() != key
    other = make_talker()
    other.backbone.architecture.speech = "whisper"
    assert other.cache_key() != key
