"""Six ways in which a published method's numbers turned out to be those of noise; one test class would catch each.

Those that need trained weights use the shipped backbone on people whom no training saw: private SynthTalk speakers, without
any adapter.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtalk.callbacks.aggregation import ISFA, FedAvg
from fedtalk.cli import main
from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip, Reference
from fedtalk.data.folder_data import FolderData
from fedtalk.data.source import ClipData
from fedtalk.data.synthtalk import Speaker, make_clip
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.encoders.mouth_probe import MouthProbe
from fedtalk.encoders.sync import SyncScorer
from fedtalk.evaluation import metrics
from fedtalk.evaluation.controls import cases as _cases
from fedtalk.evaluation.settings import EvaluationSettings
from fedtalk.privacy.sealing import STEP, PairwiseSealing
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining

FRAMES = 24


@dataclass
class Dubbed:
    """A private person's clip and what the shipped talker makes of it."""

    clip: Clip
    reference: Reference
    donor: Clip
    own: np.ndarray
    """Dubbed with the clip's own speech."""
    swapped: np.ndarray
    """Dubbed with the donor's."""

    def mouth(self, frames: np.ndarray) -> float:
        """PSNR at the mouth."""
        return metrics.psnr_mouth(self.clip.frames, frames, self.clip.mouth, self.clip.eyes)

    def opening(self, frames: np.ndarray) -> np.ndarray:
        return MouthProbe.shipped().measure(frames, self.clip.mouth, self.clip.eyes)


def _dub(talker: Talker, clip: Clip, reference: Reference, audio: np.ndarray | None = None) -> np.ndarray:
    speech = None if audio is None else torch.from_numpy(audio)
    return np.stack([frame.numpy() for frame in talker.dub(clip, reference, 0, speech)])


@pytest.fixture(scope="module")
def dubbed(shipped: Talker) -> list[Dubbed]:
    made = []
    for index in range(4):
        speaker = Speaker.draw(0, "private", index)
        clip, other = (make_clip(speaker, take, FRAMES, 128) for take in (0, 1))
        donor = make_clip(Speaker.draw(0, "public", 500 + index), 0, FRAMES, 128)
        reference = other.reference(12)
        own, swapped = (_dub(shipped, clip, reference, audio) for audio in (None, donor.audio))
        made.append(Dubbed(clip, reference, donor, own, swapped))
    return made


class TestCause1UntrainedBackbone:
    """Everything but LoRA was frozen at its random initialisation; the codec gave 11.9 dB."""

    def test_the_codec_reconstructs_people_it_has_never_seen(self, shipped: Talker) -> None:
        for index in range(400, 406):
            frames = make_clip(Speaker.draw(0, "public", index), 0, 8, 128).frames
            assert metrics.psnr(frames, shipped.reconstruct(frames)) > 26

    def test_the_dub_is_better_at_the_mouth_than_copying_the_reference_or_grey(self, dubbed: list[Dubbed]) -> None:
        own = np.mean([case.mouth(case.own) for case in dubbed])
        copied = np.mean([case.mouth(np.repeat(case.reference.frame[None], FRAMES, 0)) for case in dubbed])
        grey = np.mean([case.mouth(np.full_like(case.own, 128)) for case in dubbed])
        assert own > copied + 0.5
        assert own > grey + 2

    def test_a_random_network_of_the_same_shape_does_far_worse(self, shipped: Talker, dubbed: list[Dubbed]) -> None:
        """What the weights have learned is in the weights: the denoiser's error against the same net reinitialised."""
        prepared = [shipped.prepare_clip(case.clip) for case in dubbed]
        trained = shipped.held_out_metrics(prepared, torch.Generator().manual_seed(0))["diffusion"]
        kept = {name: value.clone() for name, value in shipped.backbone.denoiser.state_dict().items()}
        try:
            torch.manual_seed(0)
            for module in shipped.backbone.denoiser.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            untrained = shipped.held_out_metrics(prepared, torch.Generator().manual_seed(0))["diffusion"]
        finally:
            shipped.backbone.denoiser.load_state_dict(kept)
        assert trained < 0.7 * untrained  # both answer with a change of the puppet, which nothing has to be learned for


class TestCause2DeadConditioning:
    """Swapping audio or identity changed the output by less than 1e-6; audio was pooled to one vector a clip."""

    def test_swapped_audio_changes_the_mouth(self, dubbed: list[Dubbed]) -> None:
        for case in dubbed:
            inside = metrics.mouth_boxes(case.clip.mouth, case.clip.eyes, 128, 128)
            change = np.abs(case.own.astype(float) - case.swapped)[inside].mean()
            assert change > 3  # grey levels of 255

    def test_the_mouth_follows_what_it_hears(self, dubbed: list[Dubbed]) -> None:
        own, of_donor, of_own = [], [], []
        for case in dubbed:
            assert case.clip.openness is not None and case.donor.openness is not None
            own.append(metrics.mouth_corr(case.opening(case.own), case.clip.openness))
            of_donor.append(metrics.mouth_corr(case.opening(case.swapped), case.donor.openness))
            of_own.append(metrics.mouth_corr(case.opening(case.swapped), case.clip.openness))
        assert np.mean(own) > 0.65
        assert np.mean(of_donor) > 0.6 > np.mean(of_own) + 0.2

    def test_audio_speaks_frame_by_frame(self, shipped: Talker, dubbed: list[Dubbed]) -> None:
        """Other speech in the second half leaves the first half of the mouths nearly as they were."""
        case = dubbed[0]
        audio = case.clip.audio.copy()
        half = 12 * SAMPLES_PER_FRAME
        audio[half:] = case.donor.audio[half:] * (np.std(audio[half:]) / np.std(case.donor.audio[half:]))
        made = _dub(shipped, case.clip, case.reference, audio)
        inside = metrics.mouth_boxes(case.clip.mouth, case.clip.eyes, 128, 128)
        change = np.array([np.abs(case.own[f].astype(float) - made[f])[inside[f]].mean() for f in range(FRAMES)])
        assert change[14:].mean() > 3 * change[:8].mean()

    def test_another_reference_gives_another_face(self, shipped: Talker, dubbed: list[Dubbed]) -> None:
        """In the portrait task the whole face comes from it, and resembles it."""
        audio = torch.from_numpy(dubbed[0].clip.audio[: 8 * SAMPLES_PER_FRAME])
        clips = [make_clip(Speaker.draw(0, "public", index), 0, 1, 128) for index in (401, 402)]
        people = [clip.frames[0] for clip in clips]
        made = [
            np.stack([frame.numpy() for frame in shipped.portrait(audio, clip.reference(0))]).astype(float)
            for clip in clips
        ]
        assert np.abs(made[0] - made[1]).mean() > 10
        for one, other in ((0, 1), (1, 0)):
            own = np.abs(made[one] - people[one]).mean()
            assert own < 0.7 * np.abs(made[one] - people[other]).mean()


class TestCause3MisalignedWindows:
    """Audio and video windows were not of one time, and one loader returned zeros for audio."""

    def test_late_audio_gives_a_late_mouth(self, shipped: Talker, dubbed: list[Dubbed]) -> None:
        """Speech delayed by 0.2 s moves the mouth 0.2 s later: the peak of the correlation is where it should be."""
        delays = []
        for case in dubbed[:2]:
            late = np.concatenate([np.zeros(5 * SAMPLES_PER_FRAME, np.float32), case.clip.audio])[
                : len(case.clip.audio)
            ]
            assert case.clip.openness is not None
            for audio, expected in ((None, 0), (late, 5)):
                made = case.own if audio is None else _dub(shipped, case.clip, case.reference, audio)
                opening = case.opening(made)
                scores = {
                    lag: np.corrcoef(opening[8:], case.clip.openness[8 - lag : FRAMES - lag])[0, 1] for lag in range(8)
                }
                delays.append(max(scores, key=scores.__getitem__) - expected)
        assert np.abs(delays).max() <= 1

    @pytest.mark.parametrize("kind", ["synthtalk", "folder"])
    def test_every_data_module_brings_its_sound_in_time(self, kind: str, tmp_path: Path) -> None:
        """The trained sync scorer, heard on the clips as training would load them, puts the offset at zero."""
        data: ClipData = SynthTalkData(speakers=3, clips=1, held_out=1, frames=60, group="public", first=400)
        if kind == "folder":
            for client in data.clients:
                data.training_clips(client)[0].load().save(tmp_path / client / "clip-0000.npz")
            data = FolderData(str(tmp_path), held_out_seconds=0.4)
        scorer = SyncScorer.shipped()
        for client in data.clients:
            clip = data.training_clips(client)[0].load()
            assert np.abs(clip.audio).reshape(len(clip), -1).max(1).max() > 0.05
            aligned = scorer.score(clip.frames, clip.audio, clip.mouth, clip.eyes)
            shifted = scorer.score(clip.frames, np.roll(clip.audio, 6 * SAMPLES_PER_FRAME), clip.mouth, clip.eyes)
            assert aligned > shifted + 0.1


class TestCause4ReferenceFromTheScoredClip:
    """The reference was the centre frame of the very clip that was scored, and inference was fed random faces."""

    @pytest.mark.parametrize("kind", ["synthtalk", "folder"])
    def test_references_come_from_training_clips_and_are_in_no_scored_one(self, kind: str, tmp_path: Path) -> None:
        data: ClipData = SynthTalkData(speakers=3, clips=2, held_out=2, frames=40, size=32)
        if kind == "folder":
            for client in data.clients:
                for index, source in enumerate(data.training_clips(client)):
                    source.load().save(tmp_path / client / f"clip-{index}.npz")
            data = FolderData(str(tmp_path), held_out_seconds=0.6, size=32)
        cases = list(_cases(data, EvaluationSettings(clips=2)))
        assert len(cases) >= 3
        for case in cases:
            trained = np.concatenate([source.load().frames for source in data.training_clips(case.client)])
            assert (trained == case.reference.frame).all((1, 2, 3)).any()
            assert not (case.clip.frames == case.reference.frame).all((1, 2, 3)).any()
            assert case.donor.info["speaker"] != case.clip.info["speaker"]
            assert not any((trained == frame).all((1, 2, 3)).any() for frame in case.clip.frames)

    def test_training_references_are_outside_their_windows(self, make_talker, prepared: list) -> None:
        batch = make_talker().draw_batch(prepared[:1], 80, torch.Generator().manual_seed(0))
        for reference, window in zip(batch["reference"], batch["latents"], strict=True):
            assert not any(torch.equal(reference, frame) for frame in window)

    def test_generation_asks_for_a_face_and_speech_and_makes_up_neither(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["generate", "--portrait", "face.png", "--out", str(tmp_path / "out.mp4")]) == 1
        assert "--audio" in capsys.readouterr().err
        assert main(["generate", "--audio", "speech.wav", "--out", str(tmp_path / "out.mp4")]) == 1
        assert "--portrait" in capsys.readouterr().err
        assert not (tmp_path / "out.mp4").exists()


class TestCause5SettingsThatDoNothing:
    """FedProx ignored mu, methods and loaders were stubs, "sync" came from untrained nets, jitter rewarded a frozen video."""

    def test_mu_changes_what_a_client_learns(self, make_talker, prepared: list) -> None:
        from lightning.fabric import Fabric

        from fedtalk.training.local import train_locally

        moved = []
        for mu in (0.0, 10.0):
            talker = make_talker()
            start = {name: value.detach().clone() for name, value in talker.exchanged_parameters().items()}
            local = LocalTraining(steps=6, batch_size=1, learning_rate=0.01, proximal=mu)
            train_locally(Fabric(accelerator="cpu", devices=1), talker, prepared, local, 0, "anna", 0, 1)
            squares = [(v.detach() - start[n]).square().sum() for n, v in talker.exchanged_parameters().items()]
            moved.append(float(torch.stack(squares).sum().sqrt()))
        assert 0 < moved[1] < 0.9 * moved[0]

    def test_nothing_is_a_stub(self) -> None:
        """No body that only raises, unless a class below overrides it."""
        package = Path(__file__).parents[1] / "fedtalk"
        sources = [*package.rglob("*.py"), *(package.parent / "callbacks").glob("*.py")]
        assert len(sources) > 50
        for source in sources:
            text = source.read_text()
            assert not re.search(r"\bTODO\b|\bFIXME\b|\bXXX\b", text), source
            functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
            for function in functions:
                if "NotImplementedError" in ast.unparse(function):
                    assert sum(other.name == function.name for other in functions) > 1, (source, function.name)

    def test_a_frozen_video_scores_nothing_for_being_calm(self, dubbed: list[Dubbed]) -> None:
        case = dubbed[0]
        frozen = np.repeat(case.reference.frame[None], FRAMES, 0)
        assert metrics.flicker(case.clip.frames, frozen) == 0
        assert metrics.flicker(case.clip.frames, case.clip.frames) == 1
        assert metrics.mouth_corr(np.full(FRAMES, 0.3), case.clip.openness) == 0  # type: ignore[arg-type]

    def test_sync_is_of_a_trained_network(self, dubbed: list[Dubbed]) -> None:
        """It knows true speech from another's on people it has never seen; an untrained one does not."""
        torch.manual_seed(0)
        margins = {}
        for name, scorer in (("trained", SyncScorer.shipped()), ("random", SyncScorer().eval())):
            margins[name] = [
                scorer.score(case.clip.frames, case.clip.audio, case.clip.mouth, case.clip.eyes)
                - scorer.score(case.clip.frames, case.donor.audio, case.clip.mouth, case.clip.eyes)
                for case in dubbed
            ]
        assert np.mean(margins["trained"]) > 0.15 > abs(np.mean(margins["random"]))


class TestCause6MasksThatNeitherHideNorCancel:
    """Masks were 1e-3 Gaussians of public seeds, multiplied by unequal weights after masking; configs near-copies."""

    NAMES = ("anna", "bert", "cora")

    def test_weights_come_before_the_mask_and_would_break_it_afterwards(self) -> None:
        """The sum of weighted contributions opens exactly; weights put on sealed updates leave nothing but mask."""
        generator = np.random.default_rng(0)
        updates = {name: {"w": torch.from_numpy(generator.normal(0, 0.01, 64))} for name in self.NAMES}
        weights = {"anna": 0.2, "bert": 0.7, "cora": 1.0}
        expected = sum(weights[name] * updates[name]["w"].numpy() for name in self.NAMES)

        sealing = PairwiseSealing(0, self.NAMES)
        vectors = {name: np.append(weights[name] * updates[name]["w"].numpy(), weights[name]) for name in self.NAMES}
        sealed = [sealing.seal(name, vectors[name]) for name in self.NAMES]
        opened = sealing.open_sum(sealed)
        np.testing.assert_allclose(opened[:-1], expected, atol=3 * STEP)
        assert opened[-1] == pytest.approx(1.9, abs=3 * STEP)

        plain = [sealing.seal(name, updates[name]["w"].numpy()) for name in self.NAMES]
        shares = [np.frombuffer(update.payload, "<i8").astype(float) * STEP for update in plain]
        late = sum(weights[name] * share for name, share in zip(self.NAMES, shares, strict=True))
        assert np.abs(late - expected).min() > 1e3

    def test_a_mask_is_as_large_as_the_ring_and_not_a_thousandth_of_the_update(self) -> None:
        sealing = PairwiseSealing(0, self.NAMES)
        words = np.frombuffer(sealing.seal("anna", np.full(4096, 0.01)).payload, "<i8") * STEP
        assert words.std() == pytest.approx(2**32 / np.sqrt(12), rel=0.05)  # uniform over +-2**31

    def test_no_seed_of_a_run_gives_the_masks_away(self) -> None:
        payloads = set()
        for _ in range(3):
            torch.manual_seed(0)
            np.random.seed(0)
            payloads.add(PairwiseSealing(0, self.NAMES).seal("anna", np.zeros(8)).payload)
        assert len(payloads) == 3

    def test_no_setting_seeds_masks_or_noise(self) -> None:
        """Secrets come from the operating system alone: a config has nowhere to put a seed for them."""
        import inspect

        from fedtalk.privacy import sealing

        for kind in (ISFA, FedAvg, PairwiseSealing):
            assert "seed" not in inspect.signature(kind).parameters
        assert not re.search(r"numpy_generator|torch_generator|derive_seed|default_rng", inspect.getsource(sealing))
