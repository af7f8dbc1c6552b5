"""Videos side by side in several processes. One that is killed costs the video it worked on, no more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import cv2

from fedtalk.data.faces import FaceFinder, Finder, face_finder
from fedtalk.data.layouts import Source
from fedtalk.data.prepare.one_video import prepare_one
from fedtalk.data.prepare.record import PreparationRecord, VideoOutcome, state_of
from fedtalk.data.prepare.report import Reject
from fedtalk.data.prepare.settings import Settings

_finder: FaceFinder | None = None  # a worker's own: loading one takes longer than a short video


def outcomes(
    sources: list[Source], settings: Settings, finder: Finder | FaceFinder, record: PreparationRecord, jobs: int
) -> Iterator[tuple[Source, VideoOutcome]]:
    """Prepare videos; each is given back when it is done, in any order.

    A video whose process dies is tried once more alone, since its neighbours die with it in the pool; if that kills
    its process again, it is rejected.
    """
    if jobs == 1:
        found = face_finder(finder) if isinstance(finder, str) else finder
        for source in sources:
            yield source, prepare_one(source, settings, found, record.folder, record.staging(source))
        return
    waiting, suspects = list(sources), list[Source]()
    while waiting or suspects:
        batch, workers = (waiting, jobs) if waiting else ([suspects.pop()], 1)
        running: dict[Future[VideoOutcome], Source] = {}
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (finder,))
        broken = False
        try:
            while (batch or running) and not broken:
                while batch and len(running) < workers:
                    try:
                        running[pool.submit(_work, batch[0], settings, record)] = batch[0]
                    except BrokenProcessPool:  # what runs says so below
                        break
                    batch.pop(0)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    try:
                        outcome = future.result()
                    except BrokenProcessPool:
                        broken = True
                        continue
                    yield running.pop(future), outcome
        finally:  # also on Ctrl-C: what is under way is given up, what is done is kept
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
                process.join()
        if workers == 1 and broken:
            for source in running.values():
                reason = "the process that worked on it was killed, twice; is there enough memory for its pictures?"
                yield (
                    source,
                    VideoOutcome(rejects=[Reject(source.label, 0.0, reason)], state=state_of(source, settings)),
                )
        else:
            suspects += running.values()


def _start(finder: Finder | FaceFinder) -> None:
    global _finder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _finder = face_finder(finder) if isinstance(finder, str) else finder


def _end_with_parent() -> None:
    """A worker whose main process is killed would wait for ever, or write what the next run is writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(source: Source, settings: Settings, record: PreparationRecord) -> VideoOutcome:
    assert _finder is not None
    return prepare_one(source, settings, _finder, record.folder, record.staging(source))
