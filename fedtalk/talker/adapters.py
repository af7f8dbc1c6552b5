"""Adapters: LoRA on the denoiser through peft, saved in peft's own format.

W x  ->  W x + (alpha / rank) B A x,      A: (rank, in), B: (out, rank), B = 0 at the start
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diffusers import UNetMotionModel
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.storage import atomic_path, write_json
from fedtalk.talker.fedsvd import factors_of, orthonormalise
from fedtalk.talker.mouth_looks import MouthLooks

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
LOOKS = "mouth_looks.safetensors"
"""In the folder of a person's own adapter."""
CONVOLUTIONS = ("conv1", "conv2", "conv_in", "conv_out", "conv_shortcut")

DESCRIPTIVE = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_core", "peft_version"}
    | {"qalora_group_size", "revision", "task_type"}
)
"""Settings of peft that don't change what a trained adapter computes."""


@dataclass
class Adapter:
    """What a client trains and sends."""

    rank: int = 8
    alpha: float = 8.0
    targets: list[str] = field(default_factory=lambda: [*ATTENTION, *CONVOLUTIONS])
    """Ends of the names of the adapted layers. Not ``proj_in`` and ``proj_out``: the motion modules call these by keyword."""
    aggregation: Literal["factors", "freeze_a", "fedsvd"] = "factors"
    """``factors`` averages A and B each by itself (mean(B) mean(A) is not mean(B A): cheap, slightly biased);
    ``freeze_a`` keeps the random A of all clients equal and trains and sends B alone, so that the mean is exact
    (FFA-LoRA, Sun et al. 2024), at half the size; ``fedsvd`` does so too, with orthonormal rows in A, which turn to the
    principal directions of the released product between rounds (`fedtalk.talker.fedsvd`)."""

    shared: list[str] | None = None
    """Parts of the names of the adapted layers whose factors are exchanged, such as ``attentions.0.transformer_blocks.0.attn2``
    (which reads the speech); every client keeps the others' to itself from round to round (FedPer, Arivazhagan et al. 2019).
    All are exchanged by default."""

    def __post_init__(self) -> None:
        if self.shared is not None and (self.aggregation == "fedsvd" or not self.shared):
            raise ConfigurationError(
                "adapter.shared: expected parts of names of layers, and another aggregation than fedsvd, which turns all factors "
                f"together; got {self.shared!r} with {self.aggregation}. Leave it out to exchange everything"
            )
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 1:
            raise ConfigurationError(f"adapter.rank: expected a whole number of at least 1, got {self.rank!r}")
        if not isinstance(self.alpha, (int, float)) or not 0 < self.alpha < math.inf:
            raise ConfigurationError(f"adapter.alpha: expected a positive number, got {self.alpha!r}")
        if not isinstance(self.targets, list) or not all(isinstance(target, str) for target in self.targets):
            raise ConfigurationError(f"adapter.targets: expected a list of names of layers, got {self.targets!r}")
        if self.aggregation not in ("factors", "freeze_a", "fedsvd"):
            raise ConfigurationError(
                f"adapter.aggregation: expected 'factors', 'freeze_a' or 'fedsvd', got {self.aggregation!r}; methods that need "
                "single clients' factors (stacking, SVD of the mean of products) can't work on a sum"
            )

    def lora_config(self) -> LoraConfig:
        return LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=list(self.targets), init_lora_weights=True)


def add_adapter(unet: UNetMotionModel, adapter: Adapter) -> None:
    """Freeze the network and put a fresh adapter on it.

    Raises:
        ConfigurationError: no layer is called as the config says.
    """
    try:
        unet.add_adapter(adapter.lora_config())
    except ValueError as error:
        raise ConfigurationError(f"adapter.targets {adapter.targets}: {error}") from error
    if not any(is_shared(name, adapter) for name in adapter_parameters(unet)):
        raise ConfigurationError(f"adapter.shared: no adapted layer's name has any of {adapter.shared} in it")
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_("lora_B" in name or ("lora_A" in name and adapter.aggregation == "factors"))
    if adapter.aggregation == "fedsvd":
        orthonormalise(factors_of(adapter_parameters(unet)))


def is_shared(name: str, adapter: Adapter | None) -> bool:
    """Whether an adapter's factor of this name is exchanged."""
    return adapter is None or adapter.shared is None or any(part in name for part in adapter.shared)


Places = dict[str, tuple[nn.Module, str]]
"""Modules and attributes of parameters, by the parameters' names."""


def trained_places(network: nn.Module) -> Places:
    """Of what is trained; a round asks for it often, and to walk through the network takes long."""
    found = {}
    for prefix, module in network.named_modules():
        for attribute, value in module.named_parameters(recurse=False):
            if value.requires_grad:
                found[f"{prefix}.{attribute}" if prefix else attribute] = module, attribute
    return found


def trained_parameters(places: Places, adapter: Adapter | None, shared: bool) -> dict[str, nn.Parameter]:
    """Those that are exchanged, or those that clients train and keep, by name."""
    return {name: getattr(*place) for name, place in places.items() if is_shared(name, adapter) == shared}


def adapter_parameters(unet: UNetMotionModel) -> dict[str, nn.Parameter]:
    """All LoRA factors, by name."""
    return {name: parameter for name, parameter in unet.named_parameters() if ".lora_" in name}


def save_adapter(
    folder: Path, state: Mapping[str, Tensor], adapter: Adapter, backbone: str, looks: MouthLooks | None = None
) -> None:
    """Write an adapter as peft does: ``adapter_config.json`` and ``adapter_model.safetensors``.

    `peft.PeftModel.from_pretrained(unet, folder)` reads it. ``fedtalk.json`` adds which backbone it is for, and `LOOKS` what the
    mouth looks like of the person whose own it is.
    """
    renamed = {
        "base_model.model." + name.replace(".default.", "."): value.detach().cpu().contiguous()
        for name, value in state.items()
    }
    config = adapter.lora_config().to_dict()
    config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    with atomic_path(folder / "adapter_model.safetensors") as temporary:
        temporary.write_bytes(save(renamed, metadata={"format": "pt"}))
    if looks is None:
        (folder / LOOKS).unlink(missing_ok=True)
    else:
        with atomic_path(folder / LOOKS) as temporary:
            temporary.write_bytes(looks.to_bytes())
    write_json(folder / "adapter_config.json", {key: getattr(value, "value", value) for key, value in config.items()})
    write_json(folder / "fedtalk.json", {"backbone": backbone, "aggregation": adapter.aggregation})


def load_adapter(folder: Path, backbone: str) -> tuple[Adapter, dict[str, Tensor], MouthLooks | None]:
    """Read an adapter folder.

    Returns:
        its settings, its factors under the names of `adapter_parameters`, and its person's looks; None where it has none.

    Raises:
        ArtifactError: the folder is missing or damaged, asks for more than plain LoRA, holds numbers that aren't finite, or
            belongs to another backbone.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        origin = json.loads((folder / "fedtalk.json").read_text(encoding="utf-8"))
        stored = load_file(folder / "adapter_model.safetensors")
        adapter = Adapter(config["r"], config["lora_alpha"], config["target_modules"], origin["aggregation"])
        looks = MouthLooks.from_bytes((folder / LOOKS).read_bytes()) if (folder / LOOKS).exists() else None
        problem = _unusable(config, adapter, stored)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:  # another kind of file altogether
        raise ArtifactError(
            f"adapter {folder} can't be read ({type(error).__name__}: {error}); expected a folder with adapter_config.json, "
            "adapter_model.safetensors and fedtalk.json, as `fedtalk fit` writes under RUN/adapters"
        ) from error
    if problem:
        raise ArtifactError(f"adapter {folder}: {problem}")
    if origin["backbone"] != backbone:
        raise ArtifactError(
            f"adapter {folder} was trained on backbone {origin['backbone']}, this is backbone {backbone}; "
            "generate with the backbone that the adapter was trained on (--backbone)"
        )
    state = {}
    for name, value in stored.items():
        plain = name.removeprefix("base_model.model.")
        for factor in ("lora_A", "lora_B"):
            plain = plain.replace(f"{factor}.weight", f"{factor}.default.weight")
        state[plain] = value
    return adapter, state, looks


def check_fits(
    folder: Path, adapter: Adapter, state: Mapping[str, Tensor], own: Adapter, parameters: Mapping[str, Tensor]
) -> None:
    """Refuse an adapter whose factors aren't those that a network has.

    Raises:
        ConfigurationError: they have other names or shapes.
    """
    if {n: p.shape for n, p in parameters.items()} != {n: p.shape for n, p in state.items()}:
        raise ConfigurationError(
            f"adapter {folder} has {len(state)} factors of rank {adapter.rank}, the config's has {len(parameters)} of rank "
            f"{own.rank}; use the config that it was trained with"
        )


def _unusable(config: Mapping[str, object], adapter: Adapter, stored: Mapping[str, Tensor]) -> str | None:
    """Why an adapter would not do what its file says: settings that aren't applied here, or numbers that are none."""
    plain = adapter.lora_config().to_dict()
    for key, value in config.items():
        expected = plain.get(key)
        if key in DESCRIPTIVE or key == "target_modules" or not value or value == getattr(expected, "value", expected):
            continue
        return (
            f"adapter_config.json sets {key} to {value!r}; expected plain LoRA ({key}: {expected!r}). "
            "Merge or convert it with peft first"
        )
    for name, value in stored.items():
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            return f"its tensor {name} holds values that are no finite numbers; the training that made it has failed"
    return None
