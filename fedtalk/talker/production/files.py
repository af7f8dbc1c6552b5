"""Finished files, one or many, with progress bars: what `fedtalk generate` does."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedtalk.data.credentials import credentials
from fedtalk.data.faces import Finder
from fedtalk.errors import ConfigurationError
from fedtalk.storage import check_writable, remove_leftovers
from fedtalk.talker.backbone import SHIPPED
from fedtalk.talker.production.film import Made
from fedtalk.talker.production.generate import Precision, Ready, generate, load_talker
from fedtalk.talker.production.jobs import BatchOutcome, Job, read_jobs, run_jobs
from fedtalk.talker.production.recording import WhenShort


@dataclass(frozen=True)
class Order:
    """How files are made; see `fedtalk.talker.production.generate.generate`."""

    adapter: str | None = None
    run: str | None = None
    backbone: str = SHIPPED
    guidance: float = 1.0
    steps: int = 1
    stride: int = 4
    seed: int = 0
    finder: Finder = "dlib"
    when_short: WhenShort = "loop"
    learn_looks: bool = True
    keep_picture: bool = False
    device: str = "auto"
    precision: Precision = "32"
    scale: int = 4
    """Factor by which a portrait's own frames are enlarged; pictures that are kept whole are not."""
    mark: bool = False


def make_file(
    audio: str | Path,
    out: str | Path,
    portrait: str | Path | None,
    video: str | Path | None,
    order: Order,
    ready: Ready | None = None,
) -> Made:
    """Make one file; whether it can be written and signed is found before anything is generated.

    Raises:
        FedTalkError: as of `generate` and `Film.save`.
    """
    target = Path(out).expanduser()
    if target.suffix.lower() != ".mp4":
        raise ConfigurationError(f"generate: --out expects a name that ends in .mp4, got {str(out)!r}")
    sources = [Path(one).expanduser().resolve() for one in (audio, portrait, video) if one is not None]
    if target.resolve() in sources:
        raise ConfigurationError(f"generate: --out {out} is one of the inputs; choose another name")
    check_writable(target)
    remove_leftovers(target.parent, target.name)
    credentials()
    options = asdict(order)
    scale, mark = options.pop("scale"), options.pop("mark")
    film = generate(audio, portrait, video, talker=ready, **options)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(target.name, total=film.frames)
        return film.save(
            target,
            scale=1 if video is not None or order.keep_picture else scale,
            mark=mark,
            told=lambda done: bar.update(task, completed=done),
        )


def make_batch(table: Path, order: Order, overwrite: bool = False) -> BatchOutcome:
    """Make the files of a table, see `fedtalk.talker.production.jobs.read_jobs`; what a line leaves open is as in ``order``.

    Raises:
        ConfigurationError: the table is no such table.
        MediaError: it can't be read.
    """
    loaded: tuple[str | None, Ready] | None = None

    def make(job: Job) -> None:
        nonlocal loaded
        own = replace(order, adapter=job.adapter or order.adapter, seed=order.seed if job.seed is None else job.seed)
        if loaded is None or loaded[0] != own.adapter:
            loaded = None  # two talkers at once would take twice the memory
            loaded = own.adapter, load_talker(own.adapter, own.run, own.backbone, own.device)
        print(make_file(job.audio, job.out, job.portrait, job.video, own, loaded[1]))

    return run_jobs(read_jobs(table), make, overwrite)
