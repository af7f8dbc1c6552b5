"""The talker: a latent video diffusion model of a speaking face, and what a client learns of its own.

One network does two tasks. *Dub* replaces the lower face of given frames so that it matches the audio; *portrait* draws
the whole face from one picture. They differ in the mask alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedtalk.checks import check_least, check_share
from fedtalk.data.clip import Clip, Reference
from fedtalk.errors import ConfigurationError
from fedtalk.talker import batches
from fedtalk.talker.adapters import (
    Adapter,
    adapter_parameters,
    add_adapter,
    check_fits,
    load_adapter,
    save_adapter,
    trained_parameters,
    trained_places,
)
from fedtalk.talker.backbone import SHIPPED, Architecture, Backbone
from fedtalk.talker.fedsvd import factors_of, refactored
from fedtalk.talker.generation import Generation
from fedtalk.talker.masks import loss_weight
from fedtalk.talker.mouth_looks import MouthLooks
from fedtalk.talker.objectives import DiffusionLoss, Objective, Prediction, TemporalDenoisingConsistency
from fedtalk.talker.quality import identity_encoder, quality
from fedtalk.talker.reliability import identity_and_stability
from fedtalk.talker.schedule import NoiseSchedule, make_schedule
from fedtalk.talker.stacked_adapters import own_factors
from fedtalk.training.module import CommonForm, FederatedModule, Prepared, load_state, with_sum

LEAST_SIGMA = 0.3
"""Noise level below which errors of the clean estimate are no longer scaled up to errors of the noise."""


class Talker(FederatedModule):
    """Latent diffusion talker with an optional LoRA adapter.

    With an adapter the backbone is frozen and the adapter is what a round exchanges; without one the denoiser and its
    audio encoder are trained whole (to make a backbone).
    """

    def __init__(
        self,
        backbone: str = SHIPPED,
        architecture: Architecture | None = None,
        adapter: Adapter | None = None,
        objectives: list[Objective] | None = None,
        dub_share: float = 0.7,
        window: int = 8,
        drop_audio: float = 0.08,
        drop_reference: float = 0.08,
        mouth_emphasis: float = 2.0,
        pure_noise: float = 0.0,
        guidance: float = 1.0,
        sampling_steps: int = 10,
        stride: int = 4,
    ) -> None:
        """
        Args:
            backbone: ``shipped`` or the folder of a backbone; ignored when ``architecture`` is given.
            architecture: build a new backbone instead.
            adapter: LoRA settings; None trains the whole denoiser.
            objectives: terms of the objective; diffusion loss and TDC by default.
            dub_share: share of training windows that dub, the others are portraits.
            window: frames a training window.
            drop_audio: share of windows that train without audio, for classifier-free guidance.
            drop_reference: share of windows that train without reference.
            mouth_emphasis: how much more an error at the mouth counts than elsewhere.
            pure_noise: share of windows that train at the last timestep, where sampling starts; the others train at any.
            guidance: weight of the audio when sampling; 1 is the plain conditional model, which is twice as fast.
            sampling_steps: DDIM steps.
            stride: frames from one sampling window to the next; windows overlap by ``window - stride``.
        """
        super().__init__()
        check_share(
            "model", dub_share=dub_share, drop_audio=drop_audio, drop_reference=drop_reference, pure_noise=pure_noise
        )
        if window < 2 or window > 32:
            raise ConfigurationError(f"model.window: expected 2 to 32 frames (the motion modules' reach), got {window}")
        if not 0 < stride <= window:
            raise ConfigurationError(f"model.stride: expected 1 to the window's {window} frames, got {stride}")
        check_least("model", 1, sampling_steps=sampling_steps)
        self.backbone = Backbone.build(architecture) if architecture is not None else Backbone.load(backbone)
        self.adapter = adapter
        self.objectives = objectives if objectives is not None else [DiffusionLoss(), TemporalDenoisingConsistency()]
        if not self.objectives:
            raise ConfigurationError("model.objectives: expected at least one term, got none")
        self.dub_share, self.window, self.mouth_emphasis = dub_share, window, mouth_emphasis
        self.drop_audio, self.drop_reference, self.pure_noise = drop_audio, drop_reference, pure_noise
        self.guidance, self.sampling_steps, self.stride = guidance, sampling_steps, stride
        self.scheduler = make_schedule(self.backbone.architecture.prediction)
        self.noise_schedule = NoiseSchedule(self.scheduler)
        if adapter is not None:
            self._fingerprint = self.backbone.fingerprint()
            self.backbone.requires_grad_(False)
            # Clients must start from one and the same adapter, whatever was drawn before.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(self._fingerprint[:12], 16))
                add_adapter(self.backbone.denoiser.unet, adapter)
        else:
            self._fingerprint = "new" if architecture is not None else self.backbone.fingerprint()
        self._places = trained_places(self.backbone.denoiser)

    # What a round exchanges

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return trained_parameters(self._places, self.adapter, shared=True)

    def kept_parameters(self) -> dict[str, nn.Parameter]:
        return trained_parameters(self._places, self.adapter, shared=False)

    def fingerprint(self) -> str:
        return self._fingerprint

    def meaning(self) -> dict[str, object]:
        settings = {} if self.adapter is None else asdict(self.adapter)
        return {f"model.adapter.{name}": value for name, value in settings.items()}

    @property
    def changes_form(self) -> bool:  # type: ignore[override]
        return self.adapter is not None and self.adapter.aggregation == "fedsvd"

    def local_form(self) -> AbstractContextManager[CommonForm]:
        if not self.changes_form:
            return super().local_form()
        denoiser = self.backbone.denoiser
        return refactored(factors_of({name: value for name, value in denoiser.named_parameters() if ".lora_" in name}))

    def shards(self) -> list[nn.Module]:
        """The network's blocks, then the denoiser around them; codec and speech features stay whole."""
        if self.changes_form:
            raise ConfigurationError(
                "adapter.aggregation: fedsvd needs whole factors in every process: expected placement single or ddp, got fsdp"
            )
        unet = self.backbone.denoiser.unet
        return [*unet.down_blocks, unet.mid_block, *unet.up_blocks, self.backbone.denoiser]

    @property
    def trains_together(self) -> bool:  # type: ignore[override]
        """With an adapter; whole networks have nothing to share."""
        return self.adapter is not None

    def together(self, stacked: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        return own_factors(self.backbone.denoiser, stacked)

    def training_steps(self, batch: Prepared, clients: int) -> list[dict[str, Tensor]]:
        parts = self.predict_windows(batch).split(clients)
        return [with_sum({term.name: term.weight * term(part) for term in self.objectives}) for part in parts]

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        unet = self.backbone.denoiser.unet
        unet.enable_gradient_checkpointing() if enabled else unet.disable_gradient_checkpointing()

    def set_compiled(self, enabled: bool) -> None:
        if enabled:
            self.backbone.denoiser.unet.compile(dynamic=False)  # finds what has been compiled before
        else:
            self.backbone.denoiser.unet._compiled_call_impl = None

    def save_adapter(self, folder: Path) -> None:
        """Write the current adapter in peft's format."""
        if self.adapter is None:
            raise ConfigurationError("this talker trains its whole backbone and has no adapter to save")
        unet = self.backbone.denoiser.unet
        save_adapter(folder, adapter_parameters(unet), self.adapter, self._fingerprint, self.looks)

    def load_adapter(self, folder: Path) -> None:
        """Read an adapter made for this backbone; puts one on the network if there is none yet."""
        adapter, state, looks = load_adapter(folder, self._fingerprint)
        if self.adapter is None:
            self.backbone.requires_grad_(False)
            add_adapter(self.backbone.denoiser.unet, adapter)
            self.adapter, self._places = adapter, trained_places(self.backbone.denoiser)
        parameters = adapter_parameters(self.backbone.denoiser.unet)
        check_fits(folder, adapter, state, self.adapter, parameters)
        load_state(parameters, state)
        self.looks = looks

    def export(self, folder: Path, clips: Sequence[Prepared]) -> None:
        """Write the backbone."""
        self.backbone.save(folder)

    # Data

    def cache_key(self) -> str:
        return batches.cache_key(self.backbone, self.looks)

    def prepare_clip(self, clip: Clip) -> Prepared:
        return batches.prepare_clip(self.backbone, clip, self.device, self.looks)

    def looks_of(self, clips: Sequence[Prepared]) -> MouthLooks | None:
        return MouthLooks.fitted([clip["missing"].cpu().numpy() for clip in clips])

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        return batches.draw_batch(
            clips, size, generator, window=self.window, timesteps=len(self.noise_schedule.signal),
            dub_share=self.dub_share, drop_audio=self.drop_audio, drop_reference=self.drop_reference, pure_noise=self.pure_noise,
        )  # fmt: skip

    # Training

    def predict_windows(self, batch: Prepared) -> Prediction:
        """Run the network once on a training batch."""
        clean, noise, timestep = batch["latents"], batch["noise"], batch["timestep"]
        noisy = self.noise_schedule.add_noise(clean, noise, timestep)
        output = self.backbone.denoiser(
            noisy, timestep, batch["reference"], batch["moved"], batch["mask"], batch["windows"],
            batch["audio_present"], batch["reference_present"],
        )  # fmt: skip
        clean_hat, noise_hat = self.noise_schedule.clean_and_noise(output, noisy, timestep)
        signal = self.noise_schedule.signal.to(timestep.device)[timestep]
        # Where hardly any noise is left, an error of the clean estimate would count a hundredfold as an error of noise.
        sigma = (1 - signal.square()).clamp_min(0).sqrt()[:, None, None, None, None]
        noise_hat = noise + (noise_hat - noise) * (sigma / LEAST_SIGMA).clamp(max=1)
        return Prediction(
            output,
            self.noise_schedule.target(clean, noise, timestep),
            clean,
            clean_hat,
            noise,
            noise_hat,
            loss_weight(batch["mask"], batch["mouth"], self.mouth_emphasis),
            signal,
            self.noise_schedule.prediction,
            batch["reference"],
            self.backbone.codec.decode,
            batch["windows"],
            batch["mouth"],
            batch["eyes"],
            self.backbone.codec.spread.expand(len(clean), -1),
        )

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        prediction = self.predict_windows(batch)
        return {term.name: term.weight * term(prediction) for term in self.objectives}

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """Terms of the objective on one fixed batch, and the diffusion error by third of the noise levels."""
        with torch.no_grad():
            batch = self.draw_batch(clips, 16, generator)
            batch["audio_present"][:], batch["reference_present"][:] = True, True
            batch["timestep"] = torch.linspace(0, len(self.noise_schedule.signal) - 1, 16).round().long()
            prediction = self.predict_windows({name: value.to(self.device) for name, value in batch.items()})
            metrics = {term.name: float(term.weight * term(prediction)) for term in self.objectives}
            error = (prediction.output_BFChw - prediction.target_BFChw).square() * prediction.weight_BF1hw
            by_level = error.mean((1, 2, 3, 4))
        low, middle, high = (float(part.mean()) for part in by_level.tensor_split(3))
        return {"loss": sum(metrics.values()), **metrics, "low_noise": low, "middle_noise": middle, "high_noise": high}

    @torch.no_grad()
    def reliability(
        self, held_out: Sequence[Prepared], training: Sequence[Prepared], generator: torch.Generator
    ) -> tuple[float, float]:
        """`identity_and_stability` of one-step estimates on held-out clips, beside the first frames of the training clips."""
        batch = self.draw_batch(held_out, 6, generator)
        batch["audio_present"][:], batch["reference_present"][:] = True, True
        batch["timestep"][:] = len(self.noise_schedule.signal) // 2
        prediction = self.predict_windows({name: value.to(self.device) for name, value in batch.items()})
        known = torch.stack([clip["latents"][0].float() for clip in training]).to(self.device)
        decode = self.backbone.codec.decode  # what it gives is looked at on the CPU, where clips are prepared
        return identity_and_stability(prediction.frames_hat.cpu(), decode(known).cpu(), identity_encoder())

    def quality(self, training: Sequence[Prepared]) -> float:
        return quality(training)

    # Generation

    @property
    def generation(self) -> Generation:
        """The talker as it is now, to be sampled from."""
        return Generation(
            self.backbone, self.scheduler, self.guidance, self.sampling_steps, self.window, self.stride, self.device,
            self.looks)  # fmt: skip

    def dub(self, clip: Clip, reference: Reference, seed: int = 0, audio: Tensor | None = None) -> Iterator[Tensor]:
        """See `Generation.dub`."""
        return self.generation.dub(clip, reference, seed, audio)

    def portrait(
        self, audio: Tensor, reference: Reference, seed: int = 0, eyes: np.ndarray | None = None
    ) -> Iterator[Tensor]:
        """See `Generation.portrait`."""
        return self.generation.portrait(audio, reference, seed, eyes)

    def reconstruct(self, frames: np.ndarray) -> np.ndarray:
        """See `Generation.reconstruct`."""
        return self.generation.reconstruct(frames)
