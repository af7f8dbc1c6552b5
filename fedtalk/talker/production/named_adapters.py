"""Adapters by the names of their people, alone or blended."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

from fedtalk.data import consent
from fedtalk.errors import ArtifactError, ConfigurationError
from fedtalk.talker.adapters import adapter_parameters, load_adapter
from fedtalk.talker.module import Talker
from fedtalk.talker.mouth_looks import MouthLooks
from fedtalk.training.module import load_state

log = logging.getLogger("fedtalk")

CONFIG = "adapter_config.json"
RUNS = "runs"
"""Folder, below the one that the command is run in, in which names are looked for where no run is named."""


def parse_adapters(text: str | Mapping[str, float] | None) -> dict[str, float]:
    """Weights by name or folder.

    >>> parse_adapters("anna"), parse_adapters("anna:0.7, bert:0.3")
    ({'anna': 1.0}, {'anna': 0.7, 'bert': 0.3})

    Raises:
        ConfigurationError: a weight is no number above 0, or a name comes twice.
    """
    if text is None:
        return {}
    if not isinstance(text, str):
        pairs = [(name, float(weight)) for name, weight in text.items()]
    elif Path(text).expanduser().is_dir():  # whatever signs are in its name
        pairs = [(text, 1.0)]
    else:
        pairs = []
        for part in text.split(","):
            name, colon, number = part.strip().rpartition(":")
            try:
                pairs.append((name, float(number)) if colon else (part.strip(), 1.0))
            except ValueError as error:
                raise ConfigurationError(
                    f"adapter {part.strip()!r}: expected NAME or NAME:WEIGHT, got weight {number!r}"
                ) from error
    for name, weight in pairs:
        if not name or not (weight > 0 and math.isfinite(weight)):
            raise ConfigurationError(f"adapter {name!r}: expected a name and a weight above 0, got {weight:g}")
    if len(dict(pairs)) < len(pairs):
        raise ConfigurationError(f"adapter {text!r}: a name comes twice; add its weights up")
    return dict(pairs)


def find_adapter(name: str, run: str | Path | None = None) -> Path:
    """An adapter's folder.

    ``name`` is a folder itself; or a person's name, looked for in the adapters of ``run``, or of all runs below `RUNS`.

    Raises:
        ArtifactError: none is found, or several are.
    """
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    roots = (
        [Path(run).expanduser()] if run is not None else sorted(path for path in Path(RUNS).glob("*") if path.is_dir())
    )
    known = {root: sorted(path.parent for path in (root / "adapters").rglob(CONFIG)) for root in roots}
    found = [path for paths in known.values() for path in paths if path.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ArtifactError(
            f"adapter {name}: found in {', '.join(map(str, found))}; name one of these folders, or its run with --run"
        )
    names = sorted({path.name for paths in known.values() for path in paths})
    where = f"run {run}" if run is not None else f"the runs below {RUNS}/"
    there = f"there are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "which has none"
    raise ArtifactError(f"adapter {name}: no such folder, and no such name in {where} ({there})")


def use_adapters(talker: Talker, weights: Mapping[str, float], run: str | Path | None = None) -> dict[str, float]:
    """Put adapters on a talker that has none.

    ``W x + sum_i w_i (alpha_i / rank_i) B_i A_i x``: the adapters' changes are added, weighted; so are their people's looks.

    Args:
        talker: built without an adapter.
        weights: by name or folder, see `find_adapter`.
        run: where names are looked for.

    Returns:
        weights by the names of the folders, for the record.

    Raises:
        ArtifactError: one can't be found or read, or was made for another backbone.
        ConfigurationError: a person has taken consent back.
    """
    folders = {find_adapter(name, run): weight for name, weight in weights.items()}
    for folder in folders:
        _check_consent(folder)
    if list(folders.values()) == [1.0]:
        talker.load_adapter(next(iter(folders)))
        return {next(iter(folders)).name: 1.0}
    unet, names, looks = talker.backbone.denoiser.unet, list[str](), list[tuple[MouthLooks | None, float]]()
    for number, (folder, weight) in enumerate(folders.items()):
        adapter, state, own_looks = load_adapter(folder, talker.fingerprint())
        looks.append((own_looks, weight))
        names.append(f"blended{number}")
        with warnings.catch_warnings():  # peft warns of the second one, which is wanted here
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            unet.add_adapter(adapter.lora_config(), adapter_name=names[-1])
        own = {
            name.replace(f".{names[-1]}.", ".default."): value
            for name, value in adapter_parameters(unet).items()
            if f".{names[-1]}." in name
        }
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in state.items()}:
            raise ArtifactError(f"adapter {folder}: its factors don't fit its own config; it is damaged or incomplete")
        load_state(own, state)
    if names:
        unet.set_adapters(names, list(folders.values()))
    talker.looks = MouthLooks.blended(looks)
    return {folder.name: weight for folder, weight in folders.items()}


def _check_consent(folder: Path) -> None:
    if not (folder / consent.RECORD).exists():
        return  # of nobody in particular, or made before there were records
    if consent.revoked(folder):
        raise ConfigurationError(f"adapter {folder}: the person has taken consent back; delete it")
    why = consent.problem(folder, consent.GENERATE)
    if why is not None:
        log.warning("adapter %s: %s", folder, why)
