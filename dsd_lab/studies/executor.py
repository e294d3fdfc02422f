"""Cells on any executor: in this process, on several, or on a cluster.

The engine is another's: loky's processes, Dask, or whatever has `submit` as `concurrent.futures`
has it. Ours is what makes the result independent of it: cells are kept in their order, a worker
that dies has its cell tried again, and what ends a study early loses nothing that is done.
"""

import platform
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.metadata import version
from queue import SimpleQueue
from typing import Any

import loky
import torch
from loky.process_executor import TerminatedWorkerError

from .. import __version__
from ..checks import at_least
from ..files import expanded
from ..priors import Prior, call_of, load_prior

MOST_DEATHS = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
IDLE = 60  # seconds after which a process without work ends, should nobody be left to end it
KEPT = "what is done is kept, and the same call goes on, on any executor or on none"
# a prior counts its evaluations, and threads are set for a whole process: one cell at a time in it
_alone = threading.RLock()


class KilledWorkers(RuntimeError):
    """Every process that was given the cell has died."""


class Processes:
    """`workers` spawned processes of one thread each, with `submit` as an executor has it.

    Each is a pool of its own: one that dies takes no other's work with it, and whose fault it was
    is known. What a process was given when it died is given to a new one, at most three times;
    then its result is `KilledWorkers`. Leaving ends what is still under way.
    """

    def __init__(self, workers: int):
        self._threads = ThreadPoolExecutor(at_least("workers", workers))
        self._pools, self._free, self._closed = [], SimpleQueue(), False
        for place in range(workers):
            self._pools.append(_process())
            self._free.put(place)

    def submit(self, fn, /, *args, **kwargs) -> Future:
        return self._threads.submit(self._run, partial(fn, *args, **kwargs))

    def _run(self, work: Callable[[], Any]):
        place = self._free.get()
        try:
            for _ in range(MOST_DEATHS):
                try:
                    return self._pools[place].submit(work).result()
                except BrokenExecutor as error:
                    self._pools[place] = _process()
                    if self._closed or not isinstance(error, TerminatedWorkerError):
                        raise
            raise KilledWorkers(f"{MOST_DEATHS} processes died of it")
        finally:
            self._free.put(place)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(kill_workers=True)


def _process() -> loky.ProcessPoolExecutor:
    """A pool of one process, which leaves Ctrl-C to this one. It is started by its first work."""
    ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    return loky.ProcessPoolExecutor(1, timeout=IDLE, env=ONE_THREAD, **ignore)


def dask_client(address: str):
    """A Dask client of the scheduler at an address ("tcp://host:8786"), or of the one that wrote a
    file. Raises ValueError without Dask, OSError if nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ValueError('Dask is not installed: pip install "dsd_lab[cluster]"') from None
    if (file := expanded(address)).is_file():
        return Client(scheduler_file=str(file))
    return Client(address)


@contextmanager
def opened(executor) -> Iterator[Executor | Processes | None]:
    """An executor for `None` (none), a number of processes, a Dask client, or what is one. Raises
    TypeError for anything else, ValueError for no number of processes.
    """
    if isinstance(executor, int):
        with Processes(executor) as processes:
            yield processes
    elif hasattr(executor, "get_executor"):  # Dask's; pure: an old error would answer a new try
        yield executor.get_executor(pure=False)
    elif executor is None or hasattr(executor, "submit"):
        yield executor
    else:
        raise TypeError(
            "executor must be None, a number of processes, a Dask client, or an object with "
            f"submit as in concurrent.futures, got {executor!r}"
        )


def run_cells(
    compute: Callable, cells: Mapping[int, object], executor, keep: Callable[[int, Any], None]
) -> list[int]:
    """Compute cells on an executor, and keep each in their order, here. Returns those that were
    left out, as they killed their workers.

    executor: as `opened` takes it. keep: (number, content). Raises what a cell raises,
    ConnectionError if the executor is gone, and KeyboardInterrupt; before that, what waits is
    cancelled, and what is done is kept.
    """
    with opened(executor) as engine:
        if engine is None:
            for k, cell in cells.items():
                keep(k, run_cell(compute, cell))
            return []
        futures, left_out = {}, []
        try:
            for k, cell in cells.items():
                futures[k] = engine.submit(run_cell, compute, cell, uuid.uuid4().hex)
            for k in list(futures):
                try:
                    keep(k, futures[k].result())
                except killers():
                    left_out.append(k)
                del futures[k]
        except (BrokenExecutor, CancelledError) as error:
            why = f"{type(error).__name__} {error}".strip()
            raise ConnectionError(f"the executor is gone ({why}); {KEPT}") from error
        finally:
            waiting = {k: future for k, future in futures.items() if not future.cancel()}
            for k, future in waiting.items():
                if future.done() and future.exception() is None:
                    keep(k, future.result())
        return left_out


def run_cell(compute: Callable, cell, unique: str = ""):
    """One cell, wherever this runs; its facts say by which versions.

    unique: of this try, so that no scheduler answers it by an earlier one.
    """
    with _alone:
        content = compute(cell)
    return content._replace(facts={**content.facts, "versions": versions()})


def killers() -> tuple[type[Exception], ...]:
    """What says that a cell kills its workers: ours, and Dask's where it is in use."""
    dask = sys.modules.get("distributed")
    return (KilledWorkers, dask.KilledWorker) if dask else (KilledWorkers,)


@lru_cache
def versions() -> dict[str, str]:
    """Of what a cell's numbers depend on, in this process."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "dsd_lab": __version__,
    }


def sent(prior: Prior) -> Callable[[], Prior]:
    """What gives a prior in another process: the call of `load_prior` that made it, once a process,
    or the prior itself if it was made otherwise.
    """
    call = call_of(prior)
    return partial(_itself, prior) if call is None else partial(_loaded, *call)


@lru_cache(maxsize=1)
def _loaded(name, size, download, device, dtype) -> Prior:
    return load_prior(name, size, download=download, device=device, dtype=dtype)


def _itself(prior: Prior) -> Prior:
    return prior
