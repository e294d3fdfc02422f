"""Studies on executors: the same table whatever computes it, and whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from dsd_lab import DSD, SDS, VSD, ImageSet, cli, load_prior
from dsd_lab.priors import call_of
from dsd_lab.studies import Grid, Setting, executor, read, study
from dsd_lab.studies.executor import KilledWorkers, Processes, run_cell, sent
from dsd_lab.studies.store import Content, Store

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Dying(SDS):
    """SDS that kills its process in the first step, until `deaths` have left a mark in `marks`."""

    marks: str = ""
    deaths: int = 0

    def gradient(self, *args):
        if len(died := os.listdir(self.marks)) < self.deaths:
            Path(self.marks, str(len(died))).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gradient(*args)


@pytest.fixture
def prior(small_world):
    return ImageSet(small_world)


def grid(prompts=("warm", "cold"), **more):
    methods = {"SDS": SDS(), **more, "VSD": VSD(), "DSD": DSD()}
    return Grid(methods, prompts, [0, 3], [Setting(cfg=2.0, steps=4)], ddim_steps=5)


def table(folder):
    """Its rows as bytes, but for the seconds."""
    rows = [json.loads(line) for line in (folder / "table.jsonl").read_text().splitlines()]
    return json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]).encode()


def pixels(folder):
    return [cell.images for cell in read(folder).cells]


def assert_same(one, other):
    assert table(one) == table(other)
    assert all(map(torch.equal, pixels(one), pixels(other)))


def go(prior, folder, on, of=None):
    return study(prior, of or grid(), folder, executor=on, progress=False)


def square(n):
    return Content({"square": n * n})


def squares(contents):
    return [content and content.facts["square"] for content in contents]


# ---- what a study takes, and what it makes of it -------------------------------------------------


def test_threads_make_the_table_of_none(prior, tmp_path):
    of = Grid({"SDS": SDS(), "DSD": DSD()}, ["warm"], [0, 3], [Setting(steps=2)], ddim_steps=2)
    go(prior, tmp_path / "none", None, of)
    with ThreadPoolExecutor(3) as threads:
        assert go(prior, tmp_path / "threads", threads, of).finished
    assert_same(tmp_path / "none", tmp_path / "threads")
    assert {row["versions"]["torch"] for row in read(tmp_path / "threads").rows} == {
        torch.__version__
    }


@pytest.mark.parametrize(
    ("on", "error", "message"),
    [
        (0, ValueError, "workers must be an int of at least 1, got 0"),
        (True, ValueError, "workers must be an int of at least 1, got True"),
        ("four", TypeError, "executor must be None, a number of processes, a Dask client"),
    ],
)
def test_what_is_no_executor_is_refused(on, error, message, tmp_path):
    with pytest.raises(error, match=message):
        Store.begin(tmp_path, {}).fill(range(3), square, on)


def test_a_dask_client_is_taken_by_its_executor_that_never_repeats_an_old_answer(tmp_path):
    asked, now = {}, Now()

    def get_executor(**how):
        asked.update(how)
        return now

    client = SimpleNamespace(get_executor=get_executor)
    store = Store.begin(tmp_path, {})
    store.save(1, square(1))
    assert squares(store.fill(range(3), square, client)) == [0, 1, 4]
    assert asked == {"pure": False}
    assert [args[1] for args in now.asked] == [0, 2]  # what is there is not asked for again


class Now:
    """An executor that runs what it is given at once; `answer` may change its futures."""

    def __init__(self, answer=lambda k, future: None):
        self.asked, self.answer = [], answer

    def submit(self, fn, *args):
        future = Future()
        self.asked.append(args)
        future.set_running_or_notify_cancel()
        if self.answer(args[1], future) is None:
            future.set_result(fn(*args))
        return future


def test_each_try_is_told_from_every_other(tmp_path):
    """Dask answers what it takes for the same call by the old result, an error too."""
    now = Now()
    for folder in "ab":
        Store.begin(tmp_path / folder, {}).fill([1, 1], square, now)
    assert len({args[-1] for args in now.asked}) == 4


def test_cells_are_kept_in_their_order_though_others_are_done_first(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "_alone", threading.Semaphore(2))
    order, first = [], threading.Event()

    def compute(n):
        if n == 0:
            assert first.wait(20)
        elif n == 3:
            first.set()
        return square(n)

    with ThreadPoolExecutor(2) as threads:
        contents = Store.begin(tmp_path, {}).fill(range(4), compute, threads, order.append)
    assert order == [0, 1, 2, 3] and squares(contents) == [0, 1, 4, 9]


def test_one_cell_at_a_time_in_a_process(tmp_path):
    """A prior counts its evaluations, and the number of threads is the process's."""
    busy, most = [], []

    def compute(n):
        busy.append(n)
        most.append(len(busy))
        time.sleep(0.002)
        busy.remove(n)
        return square(n)

    with ThreadPoolExecutor(4) as threads:
        Store.begin(tmp_path, {}).fill(range(8), compute, threads)
    assert max(most) == 1


# ---- priors travel by name -----------------------------------------------------------------------


def test_a_prior_that_was_loaded_travels_by_its_call(small_world, tmp_path, monkeypatch):
    prior = load_prior("Icons", size=16)
    assert call_of(prior) == ("Icons", 16, False, "auto", None)
    load = sent(prior)
    assert load.func is executor._loaded and load.args == call_of(prior)
    loaded = []
    monkeypatch.setattr(executor, "load_prior", lambda *a, **k: loaded.append((a, k)) or prior)
    executor._loaded.cache_clear()
    assert load() is load() is prior
    assert loaded == [(("Icons", 16), {"download": False, "device": "auto", "dtype": None})]
    executor._loaded.cache_clear()
    mine = ImageSet(small_world)
    assert call_of(mine) is None and sent(mine)() is mine


def test_a_folder_travels_by_its_whole_path(tmp_path, monkeypatch):
    from PIL import Image

    for colour in ("red", "blue"):
        (tmp_path / "mine" / colour).mkdir(parents=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / "mine" / colour / "a.png")
    monkeypatch.chdir(tmp_path)
    assert call_of(load_prior("mine", 8))[0] == str((tmp_path / "mine").resolve())


# ---- whatever happens ----------------------------------------------------------------------------


def test_an_executor_that_is_gone_leaves_what_is_done_and_the_study_goes_on(tmp_path):
    def gone(k, future):
        if k == 2:
            future.set_exception(BrokenExecutor("all dead"))
            return True

    store = Store.begin(tmp_path, {})
    with pytest.raises(ConnectionError, match=r"gone \(BrokenExecutor all dead\); what is done is"):
        store.fill(range(5), square, Now(gone))
    assert squares(map(store.load, range(5))) == [0, 1, None, 9, 16]
    assert squares(store.fill(range(5), square)) == [0, 1, 4, 9, 16]


def test_what_a_cell_raises_is_raised_and_the_others_are_kept(tmp_path):
    def compute(n):
        if n == 1:
            raise ZeroDivisionError("one")
        return square(n)

    store = Store.begin(tmp_path, {})
    with ThreadPoolExecutor(1) as threads, pytest.raises(ZeroDivisionError, match="one"):
        store.fill(range(3), compute, threads)
    assert squares([store.load(0), store.load(1)]) == [0, None]


def test_a_cell_that_kills_its_workers_is_left_out_and_named(tmp_path):
    def answer(k, future):
        if k == 1:
            future.set_exception(KilledWorkers())
            return True

    store = Store.begin(tmp_path, {})
    with pytest.warns(UserWarning, match="left out, as it killed every worker: 1"):
        assert squares(store.fill(range(3), square, Now(answer))) == [0, None, 4]


def marked(marks, last, n):
    """A cell that leaves a mark; the first and the last wait until they may end."""
    Path(marks, str(n)).touch()
    while n in (0, last) and not Path(marks, "end").exists():
        time.sleep(0.01)
    return square(n)


def interrupted(marks, last):
    """Ctrl-C, once the first and the last cell have begun."""
    wait_for(lambda: {"0", str(last)} <= set(os.listdir(marks)))
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heard():
    """Ctrl-C is heard, also where the tests run in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_cancels_what_waits_and_keeps_what_is_done(tmp_path, monkeypatch, heard):
    monkeypatch.setattr(executor, "_alone", threading.Semaphore(2))
    (marks := tmp_path / "marks").mkdir()
    store = Store.begin(tmp_path / "store", {})
    threading.Thread(target=interrupted, args=(marks, 3)).start()
    with ThreadPoolExecutor(2) as threads:
        contents = store.fill(range(6), partial(marked, marks, 3), threads)
        (marks / "end").touch()
    assert squares(contents) == [None, 1, 4, None, None, None]
    assert sorted(os.listdir(marks)) == ["0", "1", "2", "3", "end"]  # 4 and 5 never began


HOLD = """
import sys, time
from pathlib import Path
from dsd_lab.studies.store import Content, Store

def compute(n):
    Path(sys.argv[2]).touch()
    time.sleep(600)

Store.begin(sys.argv[1], {}).fill([0], compute)
"""


@pytest.mark.slow
def test_another_process_in_the_folder_is_refused_until_it_dies(tmp_path):
    begun, store = tmp_path / "begun", Store.begin(tmp_path / "store", {})
    other = subprocess.Popen([sys.executable, "-c", HOLD, store.folder, begun], env=env())
    try:
        wait_for(begun.exists)
        with pytest.raises(ValueError, match="being written to by another study"):
            store.fill([0], square)
    finally:
        other.kill()
        other.wait()
    assert squares(store.fill([0], square)) == [0]


# ---- processes -----------------------------------------------------------------------------------


def env():
    path = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.fixture
def dying(tmp_path):
    """A grid with methods, by name, that kill their process as often as is asked, where each leaves
    its marks, and its table by none.
    """

    def make(prior, prompts, **deaths):
        methods = {}
        for name, most in deaths.items():
            (marks := tmp_path / f"{name} died").mkdir()
            for k in range(most):
                (marks / str(k)).touch()  # here nobody dies
            methods[name] = Dying(marks=str(marks), deaths=most)
        of = grid(prompts, **methods)
        go(prior, tmp_path / "none", None, of)
        marks = {name: Path(method.marks) for name, method in methods.items()}
        for mark in marks.values():
            for death in mark.iterdir():
                death.unlink()
        return of, marks

    return make


def died(marks):
    return {name: len(os.listdir(mark)) for name, mark in marks.items()}


@pytest.mark.slow
def test_two_processes_make_the_table_of_none_but_for_what_kills_three(prior, tmp_path, dying):
    """A cell that kills one process is tried again; one that kills three waits for the next call.
    The names say which.
    """
    of, marks = dying(prior, ["warm"], Once=1, Thrice=3)
    with pytest.warns(UserWarning, match="killed every worker: Thrice, warm, cfg 2$"):
        done = go(prior, tmp_path / "two", 2, of)
    assert died(marks) == {"Once": 1, "Thrice": 3} and not done.finished
    assert {(c.method, c.prompt) for c in read(tmp_path / "none").cells} - {("Thrice", "warm")} == {
        (c.method, c.prompt) for c in done.cells
    }
    assert go(prior, tmp_path / "two", None, of).finished
    assert_same(tmp_path / "none", tmp_path / "two")


@pytest.mark.slow
def test_ctrl_c_ends_the_processes_and_keeps_what_is_done(tmp_path, heard):
    (marks := tmp_path / "marks").mkdir()
    store = Store.begin(tmp_path / "store", {})
    began = []  # with Ctrl-C: until then, the processes may take their time to start

    def interrupt():
        interrupted(marks, 3)
        began.append(time.monotonic())

    (thread := threading.Thread(target=interrupt)).start()
    contents = store.fill(range(6), partial(marked, marks, 3), 2)
    thread.join()
    assert squares(contents) == [None, 1, 4, None, None, None]
    assert sorted(os.listdir(marks)) == ["0", "1", "2", "3"]
    assert time.monotonic() - began[0] < 120  # nobody waits for cells that would not end


def facts_of_process(_):
    facts = {"pid": os.getpid(), "threads": torch.get_num_threads()}
    executor._loaded("icons", 8, False, "auto", None)
    return Content(facts | {"loaded": executor._loaded.cache_info().misses})


class Unreadable:
    def __reduce__(self):
        return (int, ("not a number",))


@pytest.mark.slow
def test_a_process_has_one_thread_and_loads_a_prior_once():
    """What cannot be read in it is no death, and another one goes on."""
    with Processes(1) as processes:
        with pytest.raises(BrokenExecutor):
            processes.submit(run_cell, square, Unreadable()).result()
        asked = [processes.submit(facts_of_process, k) for k in range(3)]
        facts = [future.result().facts for future in asked]
    assert {f["threads"] for f in facts} == {f["loaded"] for f in facts} == {1}
    assert len({f["pid"] for f in facts} | {os.getpid()}) == 2


# ---- Dask ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    """Of two workers that are forked from a process with the library: a new one begins at once."""
    distributed = pytest.importorskip("distributed", reason='needs the extra "cluster"')
    import dask
    from distributed.utils import get_mp_context

    settings = {
        "distributed.scheduler.allowed-failures": 2,  # a third death is the last
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    with dask.config.set(settings):
        get_mp_context().set_forkserver_preload(["distributed", "dsd_lab"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None)
        with cluster, distributed.Client(cluster) as client:
            yield client


@pytest.mark.slow
def test_two_dask_workers_make_the_table_of_none_though_one_is_killed(
    prior, tmp_path, dying, client
):
    of, marks = dying(prior, ["warm", "cold"], Once=1)
    assert go(prior, tmp_path / "dask", client, of).finished
    assert died(marks) == {"Once": 1}
    assert_same(tmp_path / "none", tmp_path / "dask")


@pytest.mark.slow
def test_a_cell_that_kills_dasks_workers_is_left_out_until_the_next_call(
    prior, tmp_path, dying, client
):
    of, marks = dying(prior, ["warm"], Thrice=3)
    with pytest.warns(UserWarning, match="killed every worker: Thrice, warm"):
        assert not go(prior, tmp_path / "dask", client, of).finished
    assert died(marks) == {"Thrice": 3}
    assert go(prior, tmp_path / "dask", client.get_executor(), of).finished  # no old error
    assert_same(tmp_path / "none", tmp_path / "dask")


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_takes_processes_or_dask_not_both(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    options = ["study", "--size", "8", "--seeds", "1", "--steps", "1", "--out", str(tmp_path / "a")]
    for more, message in (
        (["--workers", "2", "--dask", "tcp://x:1"], "give --workers or --dask, not both"),
        (["--dask", "tcp://x:1"], r'Dask is not installed: pip install "dsd_lab\[cluster\]"'),
        (["--workers", "0"], "workers must be an int of at least 1"),
    ):
        done = CliRunner().invoke(cli.app, [*options, *more])
        assert isinstance(done.exception, ValueError), done.output
        with pytest.raises(ValueError, match=message):
            raise done.exception


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler and a worker, each a process of its own, as the README starts them on a cluster:
    the scheduler's file and its process. The last test kills it.
    """
    pytest.importorskip("distributed", reason='needs the extra "cluster"')
    file, parts = tmp_path_factory.mktemp("scheduler") / "dask.json", []
    how = ["--scheduler-file", str(file), "--no-dashboard"]
    begin = partial(subprocess.Popen, env=env(), stderr=subprocess.DEVNULL)
    try:
        parts.append(begin([sys.executable, "-m", "dask", "scheduler", *how, "--port", "0"]))
        wait_for(file.exists)
        parts.append(begin([sys.executable, "-m", "dask", "worker", *how, "--nthreads", "1"]))
        yield file, parts[0]
    finally:
        for part in parts[::-1]:
            part.terminate()
            part.wait()


@pytest.mark.slow
def test_the_command_makes_one_table_here_on_processes_and_on_dask(tmp_path, scheduler):
    fixed = ["study", "--size", "8", "--seeds", "2", "--steps", "2", "--prompt", "a cat", "--out"]
    ways = {"none": [], "process": ["--workers", "1"], "dask": ["--dask", str(scheduler[0])]}
    for name, way in ways.items():
        done = CliRunner().invoke(cli.app, [*fixed, str(tmp_path / name), *way])
        assert done.exit_code == 0, done.output
        assert_same(tmp_path / "none", tmp_path / name)


@pytest.mark.slow
def test_without_its_scheduler_a_study_ends_and_goes_on_here(tmp_path, scheduler):
    file, process = scheduler
    (marks := tmp_path / "marks").mkdir()
    client = executor.dask_client(str(file))

    def kill():
        wait_for((marks / "0").exists)
        process.kill()

    threading.Thread(target=kill).start()
    store = Store.begin(tmp_path / "store", {})
    with pytest.raises(ConnectionError, match="the executor is gone .* what is done is kept"):
        store.fill(range(4), partial(marked, marks, 3), client)
    (marks / "end").touch()
    assert squares(store.fill(range(4), partial(marked, marks, 3))) == [0, 1, 4, 9]
    client.close(timeout=1)
