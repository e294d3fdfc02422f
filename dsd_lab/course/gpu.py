"""What a step of text to 3-D at full size costs on a device: `dsd-lab bench gpu`.

The networks have the shapes of pretrained ones and random weights, which take the same time.
"""

import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from ..cameras import bank
from ..distill import distill_scene, diverse_score_distillation
from ..distill.setups import SIZES
from ..files import expanded, write_json
from ..methods import DSD, SDS
from ..minis.random_weights import SHAPES, random_pipeline
from ..priors import PipelinePrior, ViewPrompts
from ..priors.device import pick_device, pick_dtype
from ..priors.memory import Memory, pick_memory
from ..scene import HashField

PROMPT = "a hamburger"
# the published form, its path simulated anew and kept for eight views that stay; the noisiest last
# t is at the beginning, so that a short run has the mean length of a path
METHODS = {
    "SDS": {"method": SDS()},
    "DSD, simulated anew": {"method": DSD(form="reference", keep_path=False)},
    "DSD, paths kept": {"method": DSD(form="reference"), "cameras": bank((15.0,))},
}
COLUMNS = {
    "shape": "{}", "method": "{}", "pixels": "{}", "seconds a step": "{:.2f}",
    "seconds to begin": "{:.1f}", "evaluations a view and step": "{:.1f}", "peak GiB": "{:.1f}",
    "preset": "{}",
}  # fmt: skip


def bench(
    out: str | Path | None = None,
    shapes: Sequence[str] = tuple(SHAPES),
    sizes: Sequence[int] = SIZES,
    steps: int = 8,
    device: str | torch.device = "auto",
    perp_neg: bool = True,
    tiny: bool = False,
) -> dict[str, object]:
    """Measure, print and return {"device": ..., "rows": [...]}, one row a shape, method and size.

    out: a .json file, written after each row. tiny: small networks and fields, to see that it runs.
    Raises ValueError for an unknown shape or device.
    """
    device = pick_device(device)
    found = {"device": about(device) | {"tiny": tiny, "steps": steps}, "rows": []}
    print("\n".join(f"{name}: {value}" for name, value in found["device"].items()))
    memory = pick_memory("auto", device)
    print(line(COLUMNS), line(["---"] * len(COLUMNS)), sep="\n")
    for row in rows(shapes, sizes, steps, device, memory, perp_neg, tiny):
        found["rows"].append(row)
        print(line("-" if row[k] is None else form.format(row[k]) for k, form in COLUMNS.items()))
        if out is not None:
            write_json(expanded(out), found)
    return found


def rows(
    shapes: Sequence[str],
    sizes: Sequence[int],
    steps: int,
    device: torch.device,
    memory: Memory,
    perp_neg: bool,
    tiny: bool,
) -> Iterator[dict[str, object]]:
    """The measurements, as they are made."""
    for shape in shapes:
        pipe = random_pipeline(shape, tiny, device, pick_dtype(None, device))
        prior = ViewPrompts(PipelinePrior(pipe, shape, device), perp_neg)
        for size in sizes:
            for name, changes in METHODS.items():
                yield {"shape": shape, "method": name, "pixels": size} | measured(
                    prior, changes, size, steps, memory, tiny
                )


def measured(
    prior: ViewPrompts,
    changes: dict[str, object],
    size: int,
    steps: int,
    memory: Memory,
    tiny: bool,
) -> dict[str, object]:
    """One row: the means of a run of so many steps after one that warms up."""
    setup = diverse_score_distillation(steps, size) | changes
    stage = setup["stages"][-1]._replace(share=1.0)
    setup |= {"stages": (stage,), "memory": memory}
    if tiny:
        setup["stages"] = (stage._replace(samples=4, views=2),)
        setup["field"] = HashField(2, entries=64, coarsest=2, finest=8, hidden=4)
    module, method = torch.get_device_module(prior.device.type), setup.pop("method")
    sync = getattr(module, "synchronize", lambda: None)
    next(distill_scene(prior, PROMPT, method, 0, **setup))
    if reset := getattr(module, "reset_peak_memory_stats", None):
        reset(prior.device)
    sync()
    began = time.perf_counter()
    run = distill_scene(prior, PROMPT, method, 0, **setup)
    _ = run.stage.state  # which the first step would begin
    sync()
    begun, before = time.perf_counter(), prior.evaluations
    run.finish()
    sync()
    ended, views = time.perf_counter(), setup["stages"][0].views
    peak = getattr(module, "max_memory_allocated", None)
    return {
        "seconds a step": (ended - begun) / steps,
        "seconds to begin": begun - began,
        "evaluations a view and step": (prior.evaluations - before) / steps / views,
        "peak GiB": peak(prior.device) / 2**30 if peak else None,
        "preset": run.memory.name,
    }


def about(device: torch.device) -> dict[str, object]:
    """The device and the versions, for a table's head."""
    module = torch.get_device_module(device.type)
    named = getattr(module, "get_device_name", None)
    return {
        "device": named(device) if named else f"{device} ({platform.machine()})",
        "dtype": str(pick_dtype(None, device)),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def line(cells) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
