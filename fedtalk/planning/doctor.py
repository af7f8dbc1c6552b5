"""`fedtalk doctor`: what this machine can run, tried where trying is cheap, and what to do about what it can't."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fedtalk.errors import ConfigurationError
from fedtalk.machine import usable_cores
from fedtalk.planning.preconditions import find_compiler

LEAST_FREE_BYTES = 2 * 1024**3
"""Room for a run's videos, checkpoints and cache."""
LEAST_SHARED_BYTES = 1024**3
"""Of shared memory, for the object store of a Ray that is started here."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    ok: bool
    detail: str
    """What was found, or why not."""
    advice: str = ""
    """What to do where it is missing."""

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'missing':>7}  {self.name:<22}  {self.detail}" + (
            f"; {self.advice}" if self.advice else ""
        )


class _Missing(Exception):
    """Why a check failed, and what to do."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.advice = advice


def examine(cache_dir: str = ".cache/fedtalk") -> list[Finding]:
    """Run every check; none of them raises, downloads or leaves anything behind.

    Args:
        cache_dir: folder of prepared clips that runs here would use.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("torch", lambda: f"{torch.__version__}, lightning {importlib.metadata.version('lightning')}"),
        ("threads", _threads),
        ("cuda", _cuda),
        ("ray", _ray),
        ("placement ddp", _ddp),
        ("placement fsdp", _fsdp),
        ("ddp, fsdp on GPUs", _nccl),
        ("optimizer adamw8bit", _eight_bit),
        ("precision bf16-mixed", _bfloat),
        ("placement compile", _compile),
        ("cpu_offload", _offload),
        ("video and sound codecs", _codecs),
        ("dlib face finder", _dlib),
        ("FEDTALK_YUNET", lambda: _model_file("FEDTALK_YUNET", "face_detection_yunet_2023mar.onnx", "the finder yunet")),
        ("FEDTALK_SFACE", lambda: _model_file("FEDTALK_SFACE", "face_recognition_sface_2021dec.onnx", "identity by SFace")),
        ("transformers", lambda: _package("transformers", "transformers", "speech", "Whisper and wav2vec2 features")),
        ("HEIC pictures", lambda: _package("pillow_heif", "pillow_heif", "heic", "an iPhone's own format")),
        ("opacus", lambda: _package("opacus", "opacus", "", "accounting of differential privacy")),
        ("flower", lambda: _package("flwr", "flwr", "flower", "runs across organisations")),
        ("cache folder", lambda: _cache(Path(cache_dir))),
        ("free disk space", lambda: _disk(Path(cache_dir))),
    ]  # fmt: skip
    return [_find(name, check) for name, check in checks]


def _find(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except _Missing as missing:
        return Finding(name, False, str(missing), missing.advice)
    except Exception as error:  # a broken package may raise anything; the other lines matter all the more then
        return Finding(
            name, False, f"{type(error).__name__}: {error}", "install fedtalk anew into an empty environment"
        )


def _python() -> str:
    found = platform.python_version()
    if not (3, 10) <= tuple(map(int, platform.python_version_tuple()[:2])) < (3, 14):
        raise _Missing(f"{found}, expected 3.10 to 3.13", "make the environment with another interpreter")
    return f"{found} on {platform.system()} {platform.machine()}"


def _threads() -> str:
    usable = usable_cores()
    note = "" if torch.get_num_threads() <= usable else "; more threads than cores: set trainer.threads"
    return f"torch uses {torch.get_num_threads()} of {usable} cores{note}"


def _cuda() -> str:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "this torch is built without CUDA" if built is None else f"torch has CUDA {built} but finds no device"
        raise _Missing(why, "everything runs on the CPU, slower")
    devices = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        devices.append(f"{torch.cuda.get_device_name(index)} ({free / 1e9:.1f} of {total / 1e9:.1f} GB free)")
    return ", ".join(devices)


def _in_group(work: Callable[[], str]) -> str:
    """Do something in a process group of one."""
    from torch import distributed

    if not distributed.is_available() or not distributed.is_gloo_available():
        raise _Missing("this torch is built without gloo", "install another build of torch")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        return work()
    finally:
        distributed.destroy_process_group()


def _ray() -> str:
    version = _package("ray", "ray", "ray", "more than one worker, GPU or machine")
    cores, address = usable_cores(), os.environ.get("RAY_ADDRESS")
    where = (
        f"joins the cluster at RAY_ADDRESS={address}" if address else f"started here when it is needed, {cores} cores"
    )
    shared = Path("/dev/shm")
    if not address and shared.is_dir() and shutil.disk_usage(shared).total < LEAST_SHARED_BYTES:
        where += f"; {shared} is small, so models are shared among workers on disk: docker run --shm-size 2g"
    return f"ray {version}, {where}"


def _ddp() -> str:
    def work() -> str:
        torch.distributed.all_reduce(value := torch.ones(1))
        return f"on the CPU by gloo: a sum over one process gave {value.item():g}"

    return _in_group(work)


def _fsdp() -> str:
    def work() -> str:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        module = nn.Linear(4, 4)
        fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
        module(torch.ones(1, 4)).sum().backward()
        return "FSDP2 on the CPU by gloo: a sharded layer took a step back"

    return _in_group(work)


def _nccl() -> str:
    if not torch.distributed.is_nccl_available():
        raise _Missing("this torch is built without nccl", "ddp and fsdp run on CPUs")
    if torch.cuda.device_count() < 2:
        raise _Missing(f"{torch.cuda.device_count()} GPUs, expected two or more", "ddp and fsdp run on CPUs")
    return f"{torch.cuda.device_count()} GPUs, nccl {'.'.join(map(str, torch.cuda.nccl.version()))}"


def _bfloat() -> str:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.autocast(device, torch.bfloat16):
        found = nn.Linear(4, 4, device=device)(torch.ones(1, 4, device=device)).dtype
    if found != torch.bfloat16:
        raise _Missing(f"autocast gave {found}", "use precision 32-true")
    slow = device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return f"autocast on {device} works" + ("; this GPU emulates it, slowly" if slow else "")


def _offload() -> str:
    if not torch.cuda.is_available():
        raise _Missing("no GPU to take memory off", "leave placement.cpu_offload false")
    return "from the GPU to the machine's memory"


def _compile() -> str:
    if torch.cuda.is_available():
        return f"triton {_package('triton', 'triton', '', 'torch.compile on a GPU')}"
    try:
        compiler = find_compiler("placement.compile")
    except ConfigurationError as error:
        raise _Missing("no C++ compiler", "install g++, or name another compiler in CXX") from error
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=60)
    return version.stdout.splitlines()[0]


def _eight_bit() -> str:
    _package("bitsandbytes", "bitsandbytes", "eightbit", "8-bit optimizer states")
    from bitsandbytes.optim import AdamW8bit

    weight = nn.Parameter(torch.ones(4096))
    optimizer = AdamW8bit([weight], min_8bit_size=1)
    weight.square().sum().backward()
    optimizer.step()
    kinds = {
        value.dtype for value in optimizer.state[weight].values() if torch.is_tensor(value) and value.numel() == 4096
    }
    if kinds != {torch.uint8}:
        raise _Missing(f"its states are {sorted(map(str, kinds))}, not of 8 bits", 'pip install -U "fedtalk[eightbit]"')
    return f"bitsandbytes {importlib.metadata.version('bitsandbytes')}, one step on the CPU with states of 8 bits"


def _codecs() -> str:
    import av

    needed: tuple[tuple[str, Literal["r", "w"]], ...] = (
        ("libx264", "w"), ("aac", "w"), ("h264", "r"), ("mpeg1video", "r"),
    )  # fmt: skip
    for name, mode in needed:
        try:
            av.Codec(name, mode)
        except Exception as error:  # PyAV has renamed this one between versions
            what = "encode" if mode == "w" else "decode"
            raise _Missing(
                f"PyAV {av.__version__} can't {what} {name}", "pip install -U av (its wheel has ffmpeg)"
            ) from error
    return f"PyAV {av.__version__} writes H.264 with AAC"


def _dlib() -> str:
    from fedtalk.data.faces import dlib_module

    version = dlib_module().__version__
    weights = importlib.util.find_spec("face_recognition_models")
    places = list(weights.submodule_search_locations or []) if weights else []
    names = ("shape_predictor_68_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat")
    absent = [name for name in names if not any((Path(place) / "models" / name).is_file() for place in places)]
    if absent:
        raise _Missing(f"weights {', '.join(absent)} are absent", "pip install face_recognition_models")
    return f"dlib {version} with its weights"


def _model_file(variable: str, file_name: str, purpose: str) -> str:
    chosen = os.environ.get(variable)
    if not chosen:
        raise _Missing("not set", f"{purpose} needs it: the path of {file_name} (OpenCV model zoo)")
    if not Path(chosen).is_file():
        raise _Missing(f"{chosen} does not exist", f"name the path of {file_name}")
    return chosen


def _package(module: str, distribution: str, extra: str, purpose: str) -> str:
    if importlib.util.find_spec(module) is None:
        what = f"fedtalk[{extra}]" if extra else "fedtalk"
        raise _Missing("not installed", f'{purpose} needs it: pip install "{what}"')
    importlib.import_module(module)
    return importlib.metadata.version(distribution)


def _cache(folder: Path) -> str:
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _Missing(
            f"{place} can't be written: {error.strerror}", "choose another with trainer.cache_dir"
        ) from error
    return f"{folder} can be written"


def _disk(folder: Path) -> str:
    free = shutil.disk_usage(_existing(folder)).free
    if free < LEAST_FREE_BYTES:
        raise _Missing(
            f"{free / 1e9:.1f} GB at {folder}", f"free {LEAST_FREE_BYTES / 1e9:.0f} GB or choose another folder"
        )
    return f"{free / 1e9:.0f} GB"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = folder.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def as_dicts(findings: list[Finding]) -> list[dict[str, Any]]:
    """For JSON."""
    return [vars(finding) for finding in findings]
