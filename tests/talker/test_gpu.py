"""On a GPU a run gives what it gives on a CPU, and what it writes is read on either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_talker import ExactTalker

from fedtalk.callbacks.aggregation import ISFA
from fedtalk.data.clip import Clip
from fedtalk.data.synthtalk_data import SynthTalkData
from fedtalk.federation.cohort import PoissonCohort
from fedtalk.federation.trainer import FederatedTrainer
from fedtalk.privacy.secagg import Assumptions
from fedtalk.privacy.settings import Privacy
from fedtalk.talker.adapters import Adapter
from fedtalk.talker.module import Talker
from fedtalk.training.local import LocalTraining
from fedtalk.training.module import Prepared, copy_state
from fedtalk.training.placement import Placement

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = "cuda"
PEOPLE = 4
ROUNDING = 3e-5
"""Of what 32-bit parts (latents, what is exchanged) leave, after AdamW has enlarged it; a run changes factors by 1e-2."""


def _people() -> SynthTalkData:
    return SynthTalkData(speakers=PEOPLE, clips=1, held_out=1, frames=12, size=32)


def _trainer(folder: Path, accelerator: str, **settings: Any) -> FederatedTrainer:
    usual = {
        "rounds": 2, "validate_every": 0, "switch_off": ["progress", "videos"],
        "cohort": PoissonCohort(1.0), "aggregation": ISFA(gamma=0.0),
        "local": LocalTraining(steps=3, batch_size=2, learning_rate=3e-3, proximal=0.1),
    }  # fmt: skip
    return FederatedTrainer(
        **{**usual, **settings},
        accelerator=accelerator,
        default_root_dir=str(folder),
        cache_dir=str(folder.parent / "cache"),
    )


def _talker(backbone: Path, exact: bool = True) -> Talker:
    kind = ExactTalker if exact else Talker
    made = kind(str(backbone), adapter=Adapter(rank=2, alpha=4.0), window=4, stride=2, sampling_steps=3)
    if exact:
        made.backbone.denoiser.double()
    return made


def _fit(
    backbone: Path, folder: Path, accelerator: str, exact: bool = True, **settings: Any
) -> dict[str, torch.Tensor]:
    talker = _talker(backbone, exact)
    _trainer(folder, accelerator, **settings).fit(talker, _people())
    return {name: value.cpu() for name, value in copy_state(talker.exchanged_parameters()).items()}


def _flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([state[name].double().flatten() for name in sorted(state)])


def test_a_dub_on_a_gpu_is_that_of_a_cpu_but_for_rounding(make_talker: Callable, clips: list) -> None:
    clip, reference = clips[0], clips[1].reference(0)
    made = {}
    for device in ("cpu", DEVICE):
        talker = make_talker().to(device)
        made[device] = np.stack([frame.numpy() for frame in talker.dub(clip, reference)]).astype(int)
    assert np.abs(made["cpu"] - made[DEVICE]).mean() < 1


@pytest.mark.parametrize(
    "placed", [Placement(), Placement(accumulate=2), Placement(cpu_offload=True), Placement(gradient_checkpointing=True)],
    ids=repr,
)  # fmt: skip
def test_a_fit_on_a_gpu_is_that_of_a_cpu(tiny_backbone: Path, tmp_path: Path, placed: Placement) -> None:
    if placed.cpu_offload and DEVICE == "cpu":
        pytest.skip("nothing to move")
    on_cpu = _fit(tiny_backbone, tmp_path / "cpu", "cpu")
    on_gpu = _fit(tiny_backbone, tmp_path / "gpu", DEVICE, default_placement=placed)
    assert (_flat(on_cpu) - _flat(on_gpu)).abs().max() < ROUNDING


def test_clients_side_by_side_on_a_gpu(tiny_backbone: Path, tmp_path: Path) -> None:
    apart = _fit(tiny_backbone, tmp_path / "apart", DEVICE)
    together = _fit(tiny_backbone, tmp_path / "together", DEVICE, default_placement=Placement(together=2))
    assert (_flat(apart) - _flat(together)).abs().max() < ROUNDING


def test_half_precision_on_a_gpu_goes_where_full_precision_goes(tiny_backbone: Path, tmp_path: Path) -> None:
    start = _flat(copy_state(_talker(tiny_backbone, False).exchanged_parameters()))
    full = _flat(_fit(tiny_backbone, tmp_path / "full", DEVICE, False)) - start
    half = _flat(_fit(tiny_backbone, tmp_path / "half", DEVICE, False, precision="bf16-mixed")) - start
    assert torch.isfinite(half).all()
    assert torch.nn.functional.cosine_similarity(full, half, 0) > 0.8
    assert not torch.equal(full, half)


def test_a_run_begun_on_a_gpu_goes_on_on_a_cpu(tiny_backbone: Path, tmp_path: Path) -> None:
    """Kept optimizers included: what a checkpoint holds is no device's."""
    local = LocalTraining(steps=3, batch_size=2, learning_rate=3e-3, keep_optimizer=True)
    whole = _fit(tiny_backbone, tmp_path / "whole", "cpu", local=local)
    _fit(tiny_backbone, tmp_path / "begun", DEVICE, local=local, rounds=1)
    talker = _talker(tiny_backbone)
    _trainer(tmp_path / "begun", "cpu", local=local).fit(talker, _people(), ckpt_path="last")
    assert (_flat(whole) - _flat(copy_state(talker.exchanged_parameters()))).abs().max() < ROUNDING


def test_a_private_run_on_a_gpu(tiny_backbone: Path, tmp_path: Path) -> None:
    """Clipped, discretised, masked and noised: the same seeded noise, vectors that differ by less than a step of the lattice."""
    private = Privacy(
        clip_norm=0.5, assumptions=Assumptions(0.0, 0.3), noise_multiplier=1.0, delta=1e-2, accountant="rdp",
        insecure_noise_seed=4, both_factors=True,
    )  # fmt: skip
    settings = {"privacy": private, "minimum_clients": 3, "rounds": 1}
    on_cpu = _flat(_fit(tiny_backbone, tmp_path / "cpu", "cpu", **settings))
    on_gpu = _flat(_fit(tiny_backbone, tmp_path / "gpu", DEVICE, **settings))
    start = _flat(copy_state(_talker(tiny_backbone).exchanged_parameters()))
    assert (on_cpu - on_gpu).norm() < 0.05 * (on_cpu - start).norm()


class Greedy(ExactTalker):
    """One client asks for more memory than any card has."""

    wanted = "private-0001"

    def prepare_clip(self, clip: Clip) -> Prepared:
        greedy = torch.tensor(float(clip.info["speaker"] == self.wanted))
        return {**super().prepare_clip(clip), "greedy": greedy}

    def cache_key(self) -> str:
        return super().cache_key() + "/greedy"

    def draw_batch(self, clips: Sequence[Prepared], size: int, generator: torch.Generator) -> Prepared:
        return {**super().draw_batch(clips, size, generator), "greedy": clips[0]["greedy"]}

    def training_step(self, batch: Prepared, step: int = 0) -> dict[str, torch.Tensor]:
        if bool(batch.pop("greedy") > 0) and step == 1:
            self.hoard = torch.empty(1 << 44, device=self.device)
        return super().training_step(batch, step)


def test_a_client_without_memory_costs_its_update_alone(
    tiny_backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    talker = Greedy(str(tiny_backbone), adapter=Adapter(rank=2, alpha=4.0), window=4, stride=2, sampling_steps=3)
    talker.backbone.denoiser.double()
    trainer = _trainer(tmp_path, DEVICE)
    start = _flat(copy_state(talker.exchanged_parameters()))
    trainer.fit(talker, _people())
    assert not torch.equal(start, _flat({k: v.cpu() for k, v in copy_state(talker.exchanged_parameters()).items()}))
    assert trainer.round_number == 2
    assert Greedy.wanted in caplog.text and "memory" in caplog.text
