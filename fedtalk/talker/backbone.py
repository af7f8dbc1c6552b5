"""Backbone: codec, denoiser and audio encoder as one folder that can be shipped, loaded and named by its content.

::

    backbone/
      backbone.json                       what it was built from
      codec/                              diffusers' save_pretrained, plus fedtalk.json (whitening, packing)
      unet/                               diffusers' save_pretrained
      conditioning.safetensors            audio encoder, nulls
      README.md                           model card
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNetMotionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fedtalk.encoders.speech import FrontEnd, SpeechFeatures, speech_features
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.storage import atomic_path, write_json
from fedtalk.talker.audio_encoder import AudioEncoder
from fedtalk.talker.codec import Codec
from fedtalk.talker.denoiser import Denoiser, pretrained_unet, tiny_unet, zero_output
from fedtalk.talker.patch_autoencoder import PatchAutoencoder
from fedtalk.talker.schedule import Predicted

SHIPPED = "shipped"
UNET, CONDITIONING = "unet/diffusion_pytorch_model.safetensors", "conditioning.safetensors"


@dataclass
class Architecture:
    """What a new backbone is built from."""

    size: int = 128
    """Height and width of a frame in pixels."""
    codec: str | None = None
    """Folder of a codec (fedtalk's, or an AutoencoderKL / AutoencoderTiny of save_pretrained); a random tiny one if None."""
    pack: int = 1
    """Latent cells folded into one, in each direction."""
    unet: str | None = None
    """Folder of a pretrained UNet2DConditionModel (Stable Diffusion); a tiny network of the shape below if None."""
    motion: str | None = None
    """Folder of a pretrained MotionAdapter (AnimateDiff); needed with ``unet``."""
    channels: list[int] = field(default_factory=lambda: [64, 128])
    width: int = 128
    """Dimension of the audio tokens that the tiny network attends to."""
    heads: int = 4
    start: str | None = None
    """``shipped`` or the folder of a backbone whose weights the tiny network starts with, as far as shapes agree."""
    prediction: Predicted = "sample"
    """``sample`` (clean latents, as a change of the reference), ``v_prediction`` or, for Stable Diffusion weights,
    ``epsilon``."""
    speech: FrontEnd = "shipped"
    """``shipped``, ``mel``, ``whisper`` or ``wav2vec2``."""
    speech_path: str | None = None
    """Folder of the pretrained speech model."""

    def __post_init__(self) -> None:
        if (self.unet is None) != (self.motion is None):
            raise ConfigurationError("architecture: unet and motion are given together or not at all")
        if self.size < 32 or self.size % 8:
            raise ConfigurationError(f"architecture.size: expected a multiple of 8, at least 32, got {self.size}")


class Backbone(nn.Module):
    """All that is shared and frozen once adapters train."""

    def __init__(self, architecture: Architecture, codec: Codec, unet: UNetMotionModel) -> None:
        super().__init__()
        self.architecture = architecture
        self.codec = codec.requires_grad_(False).eval()
        self.speech: SpeechFeatures = speech_features(architecture.speech, architecture.speech_path)
        audio = AudioEncoder(self.speech.dimension, self.speech.per_frame, int(unet.config.cross_attention_dim))
        if architecture.size % codec.factor:
            raise ConfigurationError(
                f"architecture.size {architecture.size} is not a multiple of the codec's factor {codec.factor}"
            )
        self.cells = architecture.size // codec.factor
        self.denoiser = Denoiser(unet, audio, codec.latent_channels, residual=architecture.prediction == "sample")

    @classmethod
    def build(cls, architecture: Architecture) -> Backbone:
        """A new backbone: random where no pretrained folder is named."""
        codec = (
            load_codec(Path(architecture.codec), architecture.pack)
            if architecture.codec
            else Codec(PatchAutoencoder(), architecture.pack)
        )
        if architecture.unet is not None and architecture.motion is not None:
            unet = pretrained_unet(architecture.unet, architecture.motion, codec.latent_channels)
        else:
            unet = tiny_unet(
                codec.latent_channels,
                architecture.size // codec.factor,
                architecture.channels,
                architecture.width,
                architecture.heads,
            )
        backbone = cls(architecture, codec, unet)
        if architecture.start is not None:
            backbone._start_from(architecture.start)
        return backbone

    def save(self, folder: Path) -> None:
        """Write the folder; weights in half precision."""
        save_codec(self.codec, folder / "codec")
        _save_network(self.denoiser.unet, folder / "unet")
        _save_tensors(self._conditioning(), folder / CONDITIONING)
        # The folder stands for itself: where its parts came from is nobody's path but the maker's.
        stored = asdict(replace(self.architecture, codec=None, unet=None, motion=None, start=None))
        write_json(folder / "backbone.json", {"format": 2, "architecture": stored})

    @classmethod
    def load(cls, name: str) -> Backbone:
        """Read a backbone.

        Args:
            name: ``shipped`` or a folder.

        Raises:
            ArtifactError: missing or damaged.
        """
        folder = shipped_folder() if name == SHIPPED else Path(name)
        try:
            stored = json.loads((folder / "backbone.json").read_text())["architecture"]
            architecture = Architecture(**stored)
            codec = load_codec(folder / "codec", architecture.pack)
            unet = UNetMotionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
            backbone = cls(architecture, codec, unet)
            conditioning = {name: value.float() for name, value in load_file(folder / CONDITIONING).items()}
            backbone._conditioning_modules().load_state_dict(conditioning)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise ArtifactError(
                f"backbone {folder} can't be read ({type(error).__name__}: {error}); expected a folder of "
                "`fedtalk fit --config configs/backbone.yaml`, or 'shipped'"
            ) from error
        return backbone

    def _start_from(self, name: str) -> None:
        folder = shipped_folder() if name == SHIPPED else Path(name)
        conditioning = self._conditioning_modules()
        try:
            for module, file in ((self.denoiser.unet, UNET), (conditioning, CONDITIONING)):
                own = module.state_dict()
                stored = load_file(folder / file)
                same = {k: v.float() for k, v in stored.items() if k in own and own[k].shape == v.shape}
                module.load_state_dict(own | same)
                if module is self.denoiser.unet and "conv_out.weight" not in same:
                    zero_output(self.denoiser.unet)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"architecture.start {name}: expected the folder of a backbone ({error})") from error

    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash over all weights, rounded as they are stored."""
        return _fingerprint([self.codec.state_dict(), base_weights(self.denoiser.unet), self._conditioning()])

    def _conditioning_modules(self) -> nn.ModuleDict:
        modules = nn.ModuleDict({"audio": self.denoiser.audio})
        modules.register_parameter("null_reference", self.denoiser.null_reference)
        return modules

    def _conditioning(self) -> dict[str, Tensor]:
        return dict(self._conditioning_modules().state_dict())


def base_weights(unet: nn.Module) -> dict[str, Tensor]:
    """A network's own weights under their own names, whether or not an adapter sits on it."""
    return {
        name.replace(".base_layer.", "."): value for name, value in unet.state_dict().items() if ".lora_" not in name
    }


def shipped_folder() -> Path:
    return Path(str(importlib.resources.files("fedtalk.weights"))) / "backbone"


def save_codec(codec: Codec, folder: Path) -> None:
    _save_network(codec.autoencoder, folder)
    write_json(folder / "fedtalk.json", {"pack": codec.pack, "mean": codec.mean.tolist(), "std": codec.std.tolist()})


def load_codec(folder: Path, pack: int) -> Codec:
    """A codec folder; without ``fedtalk.json`` it is a plain diffusers autoencoder, whitened by its scaling factor."""
    try:
        kind = json.loads((folder / "config.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"codec {folder}: expected a folder with config.json of diffusers' save_pretrained ({error})"
        ) from error
    kinds = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    if kind == PatchAutoencoder.__name__:
        codec = Codec(_patch_autoencoder(folder), pack)
    elif kind in kinds:
        codec = Codec(kinds[kind].from_pretrained(folder, torch_dtype=torch.float32), pack)
    else:
        raise ArtifactError(f"codec {folder}: expected AutoencoderKL, AutoencoderTiny or PatchAutoencoder, got {kind}")
    extra = folder / "fedtalk.json"
    if extra.exists():
        stored = json.loads(extra.read_text())
        if stored["pack"] != pack:
            raise ArtifactError(f"codec {folder} was whitened for pack {stored['pack']}, the architecture says {pack}")
        codec.mean.copy_(torch.tensor(stored["mean"]))
        codec.std.copy_(torch.tensor(stored["std"]))
    return codec


def _patch_autoencoder(folder: Path) -> PatchAutoencoder:
    config = json.loads((folder / "config.json").read_text())
    try:
        network = PatchAutoencoder(**{key: value for key, value in config.items() if not key.startswith("_")})
        state = load_file(folder / "diffusion_pytorch_model.safetensors")
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except (OSError, TypeError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"codec {folder} can't be read ({type(error).__name__}: {error})") from error
    return network


def _save_network(network: nn.Module, folder: Path) -> None:
    """Config and weights as diffusers' save_pretrained lays them out; no adapter, half precision."""
    _save_tensors(base_weights(network), folder / "diffusion_pytorch_model.safetensors")
    config = json.loads(network.to_json_string())  # type: ignore[operator]
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != "_name_or_path"})


def _save_tensors(state: dict[str, Tensor], path: Path) -> None:
    halves = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu() for name, value in state.items()
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(halves, metadata={"format": "pt"}))


def _fingerprint(states: Iterable[dict[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for state in states:
        for name in sorted(state):
            digest.update(name.encode())
            digest.update(state[name].detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
