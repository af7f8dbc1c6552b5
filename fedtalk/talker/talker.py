"""The talker: a latent video diffusion model of a speaking face, and what a client learns of its own.

One network does two tasks. *Dub* replaces the lower face of given frames so that it matches the audio; *portrait* draws
the whole face from one picture. They differ in the mask alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtalk.data.clip import SAMPLES_PER_FRAME, Clip, Reference
from fedtalk.data.framing import align
from fedtalk.data.pixels import to_bytes, to_unit
from fedtalk.encoders.speech import frame_windows
from fedtalk.errors import ConfigurationError
from fedtalk.federation.module import FederatedModule, Prepared, load_state, with_sum
from fedtalk.talker.adapters import Adapter, adapter_parameters, add_adapter, load_adapter, save_adapter
from fedtalk.talker.backbone import SHIPPED, Architecture, Backbone
from fedtalk.talker.masks import lower_face
from fedtalk.talker.objectives import DiffusionLoss, Objective, Prediction, TemporalDenoisingConsistency
from fedtalk.talker.pose import swaying_eyes
from fedtalk.talker.sampler import Frame, sample
from fedtalk.talker.schedule import NoiseSchedule, frame_noise, make_schedule
from fedtalk.talker.stacked_adapters import own_factors

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
            guidance: weight of the audio when sampling; 1 is the plain conditional model, which is twice as fast.
            sampling_steps: DDIM steps.
            stride: frames from one sampling window to the next; windows overlap by ``window - stride``.
        """
        super().__init__()
        for name, value in (("dub_share", dub_share), ("drop_audio", drop_audio), ("drop_reference", drop_reference)):
            if not 0 <= value <= 1:
                raise ConfigurationError(f"model.{name}: expected a share in [0, 1], got {value}")
        if window < 2 or window > 32:
            raise ConfigurationError(f"model.window: expected 2 to 32 frames (the motion modules' reach), got {window}")
        if not 0 < stride <= window:
            raise ConfigurationError(f"model.stride: expected 1 to the window's {window} frames, got {stride}")
        if sampling_steps < 1:
            raise ConfigurationError(f"model.sampling_steps: expected at least 1, got {sampling_steps}")
        self.backbone = Backbone.build(architecture) if architecture is not None else Backbone.load(backbone)
        self.adapter = adapter
        self.objectives = objectives if objectives is not None else [DiffusionLoss(), TemporalDenoisingConsistency()]
        if not self.objectives:
            raise ConfigurationError("model.objectives: expected at least one term, got none")
        self.dub_share, self.window, self.mouth_emphasis = dub_share, window, mouth_emphasis
        self.drop_audio, self.drop_reference = drop_audio, drop_reference
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

    # What a round exchanges

    def exchanged_parameters(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.backbone.denoiser.named_parameters() if value.requires_grad}

    def fingerprint(self) -> str:
        return self._fingerprint

    def shards(self) -> list[nn.Module]:
        """The network's blocks, then the denoiser around them; codec and speech features stay whole."""
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
        unet = self.backbone.denoiser.unet
        if enabled:
            unet.compile(dynamic=False)  # finds what has been compiled before; compiles when it is called
        else:
            unet._compiled_call_impl = None

    def save_adapter(self, folder: Path) -> None:
        """Write the current adapter in peft's format."""
        if self.adapter is None:
            raise ConfigurationError("this talker trains its whole backbone and has no adapter to save")
        save_adapter(folder, adapter_parameters(self.backbone.denoiser.unet), self.adapter, self._fingerprint)

    def load_adapter(self, folder: Path) -> None:
        """Read an adapter made for this backbone; puts one on the network if there is none yet."""
        adapter, state = load_adapter(folder, self._fingerprint)
        if self.adapter is None:
            self.backbone.requires_grad_(False)
            add_adapter(self.backbone.denoiser.unet, adapter)
            self.adapter = adapter
        parameters = adapter_parameters(self.backbone.denoiser.unet)
        if {n: p.shape for n, p in parameters.items()} != {n: p.shape for n, p in state.items()}:
            raise ConfigurationError(
                f"adapter {folder} has {len(state)} factors of rank {adapter.rank}, the config's has {len(parameters)} of rank "
                f"{self.adapter.rank}; use the config that it was trained with"
            )
        load_state(parameters, state)

    def export(self, folder: Path, clips: Sequence[Prepared]) -> None:
        """Write the backbone."""
        self.backbone.save(folder)

    # Data

    def cache_key(self) -> str:
        codec = self.backbone.codec
        digest = hashlib.sha256()
        for value in codec.state_dict().values():
            digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
        architecture = self.backbone.architecture
        speech = f"{architecture.speech}/{architecture.speech_path}"
        return f"talker-2/{digest.hexdigest()[:16]}/{speech}/{architecture.size}/{codec.pack}"

    @torch.no_grad()
    def prepare_clip(self, clip: Clip) -> Prepared:
        """Latents of the frames and of the masked frames, mask, audio features, mouth and eyes; halves to save space.

        Two frames, the first and the last, serve as references: each is moved to where the eyes of every frame are.
        """
        size = self.backbone.architecture.size
        if clip.size != size:
            raise ConfigurationError(
                f"clip {dict(clip.info)}: frames are {clip.size} px, the backbone works at {size} px"
            )
        frames = to_unit(torch.from_numpy(clip.frames).permute(0, 3, 1, 2)).to(self.device)
        hidden, _ = lower_face(clip.eyes, size)
        hidden = hidden.to(self.device)
        latents = torch.cat([self.backbone.codec.encode(part) for part in frames.split(32)])
        masked = torch.cat([self.backbone.codec.encode(part) for part in (frames * (1 - hidden)).split(32)])
        moved = torch.stack([self._moved(clip.reference(at), clip.eyes) for at in (0, -1)])
        return {
            "latents": latents.half(),
            "masked": masked.half(),
            "moved": moved.half(),
            "mask": F.avg_pool2d(hidden, self.backbone.codec.factor).half(),
            "features": self.backbone.speech(torch.from_numpy(clip.audio)).half(),
            "mouth": torch.from_numpy(clip.mouth / size),
            "eyes": torch.from_numpy(clip.eyes / size),
        }

    @torch.no_grad()
    def _moved(self, reference: Reference, eyes: np.ndarray) -> Tensor:
        """(F, C, h, w): latents of the reference with its eyes where ``eyes`` (F, 2, 2) has them."""
        pictures = torch.from_numpy(align(reference.frame, reference.eyes, eyes)).permute(0, 3, 1, 2)
        return torch.cat([self.backbone.codec.encode(to_unit(part).to(self.device)) for part in pictures.split(32)])

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        """Windows of clips with references from outside the window, tasks, drops, timesteps and noise."""

        def integer(high: int) -> int:
            return int(torch.randint(high, (), generator=generator))

        rows = []
        for _ in range(size):
            clip = clips[integer(len(clips))]
            length = len(clip["latents"])
            if length <= self.window:
                raise ConfigurationError(
                    f"a clip has {length} frames and the training window takes {self.window}: none is left for the reference; "
                    "use longer clips"
                )
            start = integer(length - self.window + 1)
            which = self._reference_outside(start, length, integer(2))
            part = slice(start, start + self.window)
            windows = frame_windows(clip["features"].float(), self.backbone.speech.per_frame)[part]
            rows.append({
                "latents": clip["latents"][part].float(),
                "masked": clip["masked"][part].float(),
                "mask": clip["mask"][part].float(),
                "windows": windows,
                "mouth": clip["mouth"][part],
                "eyes": clip["eyes"][part],
                "moved": clip["moved"][which][part].float(),
                "reference": clip["latents"][-which].float(),
            })  # fmt: skip
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        portrait = torch.rand(size, generator=generator) >= self.dub_share
        batch["masked"][portrait] = 0.0
        batch["mask"][portrait] = 1.0
        batch["audio_present"] = torch.rand(size, generator=generator) >= self.drop_audio
        batch["reference_present"] = torch.rand(size, generator=generator) >= self.drop_reference
        batch["timestep"] = torch.randint(0, len(self.noise_schedule.signal), (size,), generator=generator)
        batch["noise"] = frame_noise(tuple(batch["latents"].shape), generator)
        return batch

    def _reference_outside(self, start: int, length: int, drawn: int) -> int:
        """Which reference a window gets, 0 (the clip's first frame) or 1 (its last): the one drawn, if that lies outside the
        window and four frames away from it, else the one farther away.
        """
        away = (start, length - start - self.window)
        return drawn if away[drawn] > 4 else int(away[1] > away[0])

    # Training

    def predict_windows(self, batch: Prepared) -> Prediction:
        """Run the network once on a training batch."""
        clean, noise, timestep = batch["latents"], batch["noise"], batch["timestep"]
        noisy = self.noise_schedule.add_noise(clean, noise, timestep)
        output = self.backbone.denoiser(
            noisy, timestep, batch["reference"], batch["moved"], batch["masked"], batch["mask"], batch["windows"],
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
            self._loss_weight(batch["mask"], batch["mouth"]),
            signal,
            self.noise_schedule.prediction,
            batch["reference"],
            self.backbone.codec.decode,
            batch["windows"],
            batch["mouth"],
            batch["eyes"],
        )

    def loss_terms(self, batch: Prepared) -> dict[str, Tensor]:
        prediction = self.predict_windows(batch)
        return {term.name: term.weight * term(prediction) for term in self.objectives}

    def held_out_metrics(self, clips: Sequence[Prepared], generator: torch.Generator) -> dict[str, float]:
        """Terms of the objective on one fixed batch, and the diffusion error by third of the noise levels."""
        with torch.no_grad():
            batch = self.draw_batch(clips, 16, generator)
            batch["audio_present"][:], batch["reference_present"][:] = True, True
            count = len(self.noise_schedule.signal)
            batch["timestep"] = torch.linspace(0, count - 1, 16).round().long()
            prediction = self.predict_windows({name: value.to(self.device) for name, value in batch.items()})
            metrics = {term.name: float(term.weight * term(prediction)) for term in self.objectives}
            error = (prediction.output_BFChw - prediction.target_BFChw).square() * prediction.weight_BF1hw
            by_level = error.mean((1, 2, 3, 4))
        low, middle, high = (float(part.mean()) for part in by_level.tensor_split(3))
        return {"loss": sum(metrics.values()), **metrics, "low_noise": low, "middle_noise": middle, "high_noise": high}

    def _loss_weight(self, mask_BF1hw: Tensor, mouth_BF2: Tensor) -> Tensor:
        """Errors count where the picture is replaced, more around the mouth, a little everywhere."""
        cells = mask_BF1hw.shape[-1]
        axis = (torch.arange(cells, device=mask_BF1hw.device) + 0.5) / cells
        x, y = mouth_BF2[..., 0, None, None], mouth_BF2[..., 1, None, None]
        near = torch.exp(-(((axis[None, :] - x) / 0.16) ** 2 + ((axis[:, None] - y) / 0.13) ** 2))[:, :, None]
        weight = 0.1 + 0.9 * mask_BF1hw + self.mouth_emphasis * near
        return weight / weight.mean((-1, -2), keepdim=True)

    # Measuring itself

    @torch.no_grad()
    def reliability(
        self, held_out: Sequence[Prepared], training: Sequence[Prepared], generator: torch.Generator
    ) -> tuple[float, float]:
        """Identity consistency and temporal stability of one-step estimates on the client's held-out clips.

        Identity: mean cosine of embeddings (the shipped encoder) between estimated frames and the first frames of the
        training clips, clipped to [0, 1]. Stability: ``exp(-j / 0.05)``, where j is the mean absolute second difference in
        time of the estimated frames (grey levels in [0, 1]). Strangers among the clips lower the first, flicker
        the second; blur and late audio agree with themselves and lower neither.
        """
        batch = self.draw_batch(held_out, 6, generator)
        batch["audio_present"][:], batch["reference_present"][:] = True, True
        batch["timestep"][:] = len(self.noise_schedule.signal) // 2
        prediction = self.predict_windows({name: value.to(self.device) for name, value in batch.items()})
        frames = prediction.frames_hat
        encoder = self._identity_encoder()
        known = torch.stack([clip["latents"][0].float() for clip in training]).to(self.device)
        embedded, own = encoder(frames.flatten(0, 1)), encoder(self.backbone.codec.decode(known))
        identity = float((embedded @ own.T).mean().clamp(0, 1))
        grey = frames.mean(2) / 2
        jitter = float(grey.diff(dim=1).diff(dim=1).abs().mean())
        return identity, float(torch.exp(torch.tensor(-jitter / 0.05)))

    def _identity_encoder(self) -> nn.Module:
        from fedtalk.encoders.identity import IdentityEncoder

        if not hasattr(self, "_encoder"):
            # Kept out of the module's own parameters: it belongs to the measuring, not to the model.
            self.__dict__["_encoder"] = IdentityEncoder.shipped().eval().requires_grad_(False).to(self.device)
        return self.__dict__["_encoder"]

    # Sampling

    def dub(self, clip: Clip, reference: Reference, seed: int = 0, audio: Tensor | None = None) -> Iterator[Tensor]:
        """Replace the lower face of a clip.

        Args:
            clip: whose upper faces and head motion are kept; its lower faces are never seen by the network.
            reference: a picture of the same person, from another time.
            seed: of the noise.
            audio: (N,) other speech of the clip's length; the clip's own by default.

        Yields:
            (H, W, 3) uint8 frames.
        """
        size = self.backbone.architecture.size
        hidden, alpha = lower_face(clip.eyes, size)
        speech = torch.from_numpy(clip.audio) if audio is None else audio
        original = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)

        def conditions() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for first in range(0, len(clip), 32):
                part = slice(first, first + 32)
                moved = self._moved(reference, clip.eyes[part])
                with torch.no_grad():
                    masked = self.backbone.codec.encode((to_unit(original[part]) * (1 - hidden[part])).to(self.device))
                mask = F.avg_pool2d(hidden[part], self.backbone.codec.factor).to(self.device)
                yield from zip(moved, masked, mask, strict=True)

        for index, frame in enumerate(self._sample(speech, len(clip), reference, conditions(), seed)):
            blend = alpha[index]
            merged = blend * to_unit(frame) + (1 - blend) * to_unit(original[index])
            yield to_bytes(merged).permute(1, 2, 0)

    def portrait(
        self, audio: Tensor, reference: Reference, seed: int = 0, eyes: np.ndarray | None = None
    ) -> Iterator[Tensor]:
        """Draw a whole speaking face.

        Args:
            audio: (640 F,) float32, 16 kHz.
            reference: the picture of the person.
            seed: of the noise, and of the head's sway.
            eyes: (F, 2, 2) eye centres in pixels that say how the head is held; a slow sway (`swaying_eyes`) by default.

        Yields:
            F frames (H, W, 3) uint8.
        """
        count = len(audio) // SAMPLES_PER_FRAME
        held = swaying_eyes(reference.eyes, count, seed) if eyes is None else eyes
        if held.shape != (count, 2, 2):
            raise ConfigurationError(
                f"portrait: expected eyes ({count}, 2, 2) for {count} frames of audio, got {held.shape}"
            )
        channels, cells = self.backbone.codec.latent_channels, self.backbone.cells
        hidden = torch.zeros(channels, cells, cells, device=self.device)
        everywhere = torch.ones(1, cells, cells, device=self.device)

        def conditions() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for first in range(0, count, 32):
                for moved in self._moved(reference, held[first : first + 32]):
                    yield moved, hidden, everywhere

        for frame in self._sample(audio, count, reference, conditions(), seed):
            yield frame.permute(1, 2, 0)

    @torch.no_grad()
    def reconstruct(self, frames: np.ndarray) -> np.ndarray:
        """(F, H, W, 3) uint8 through the codec and back: the best that the talker could do."""
        pictures = to_unit(torch.from_numpy(frames).permute(0, 3, 1, 2)).to(self.device)
        parts = [to_bytes(self.backbone.codec.decode(self.backbone.codec.encode(part))) for part in pictures.split(32)]
        return torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def _sample(
        self,
        audio: Tensor,
        count: int,
        reference: Reference,
        conditions: Iterator[tuple[Tensor, Tensor, Tensor]],
        seed: int,
    ) -> Iterator[Tensor]:
        """(3, H, W) uint8 frames, streamed."""
        channels, cells = self.backbone.codec.latent_channels, self.backbone.cells
        windows = frame_windows(self.backbone.speech(audio), self.backbone.speech.per_frame)
        picture = to_unit(torch.from_numpy(reference.frame).permute(2, 0, 1))[None].to(self.device)
        latent = self.backbone.codec.encode(picture)
        generator = torch.Generator().manual_seed(seed)
        shared = torch.randn(channels, cells, cells, generator=generator)

        def frames() -> Iterator[Frame]:
            for index, (moved, masked, mask) in enumerate(conditions):
                noise = (shared + torch.randn(channels, cells, cells, generator=generator)) / 2**0.5
                yield Frame(noise.to(self.device), moved, masked, mask, windows[index].to(self.device))

        def predict(groups: list[list[Frame]], timestep: Tensor) -> Tensor:
            def stack(name: str) -> Tensor:
                return torch.stack([torch.stack([getattr(frame, name) for frame in group]) for group in groups])

            size = len(groups)
            inputs = [stack("latent_Chw"), timestep.to(self.device).expand(size), latent.expand(size, -1, -1, -1),
                      stack("moved_Chw"), stack("masked_Chw"), stack("mask_1hw"), stack("window_TD")]  # fmt: skip
            yes = torch.ones(size, dtype=torch.bool, device=self.device)
            heard = self.backbone.denoiser(*inputs, yes, yes)
            if self.guidance == 1.0:
                return heard
            unheard = self.backbone.denoiser(*inputs, ~yes, yes)
            return unheard + self.guidance * (heard - unheard)

        def decoded(latents: Iterator[Tensor]) -> Iterator[Tensor]:
            for value in latents:
                yield to_bytes(self.backbone.codec.decode(value[None]))[0].cpu()

        stream = sample(frames(), count, predict, self.scheduler, self.sampling_steps, self.window, self.stride)
        yield from decoded(stream)
