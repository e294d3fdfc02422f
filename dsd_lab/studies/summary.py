"""What a study comes to: each method at each setting, over prompts, with intervals over seeds."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..metrics import (
    COSTS,
    MEASURES,
    Estimate,
    JudgeNetwork,
    Measure,
    Samples,
    aligned,
    as_text,
    distinct,
    mean,
    modes_even,
    stratified,
)
from .grid import REFERENCE
from .run import Finished, read


@dataclass(frozen=True)
class Summary:
    """One method at one setting, over the prompts that it has finished.

    Means over prompts of what `Report` says of one, vendi of `vendi_score`, and relative: modes
    over DDIM's modes from the same seeds at the same cfg; named needs a judge. Intervals are over
    seeds, stratified by prompt; nan below 3 seeds. None where there is nothing to tell. evaluations
    and seconds: a picture.
    """

    method: str
    settings: dict
    label: str
    prompts: int
    seeds: int
    modes: Estimate | None
    nearest: Estimate | None
    even: float | None
    relative: Estimate | None
    distance: Estimate | None
    outside: Estimate | None
    pairwise: Estimate | None
    vendi: Estimate
    agreement: Estimate | None
    same_mode: Estimate | None
    evaluations: float
    seconds: float
    named: Estimate | None = None


COLUMNS = [m for m in (*MEASURES, *COSTS) if m.key in Summary.__dataclass_fields__]


def summarise(path: str | Path, judge: JudgeNetwork | None = None) -> list[Summary]:
    """Each method at each setting, best first: by modes, then distance; without known pictures by
    pairwise distance.

    judge: of the prior's world, if its word on the samples is wanted.
    """
    groups: dict[tuple[str, str], dict[str, Finished]] = {}
    for cell in read(path).cells:
        if judge is not None:
            named = judge.named(cell.images, cell.prompt)
            cell = cell._replace(samples=replace(cell.samples, named=named))
        groups.setdefault((cell.method, json.dumps(cell.settings)), {})[cell.prompt] = cell
    used = [(method, json.loads(text)) for method, text in groups]
    cells = list(groups.values())
    ddim = {s["cfg"]: c for (m, s), c in zip(used, cells, strict=True) if m == REFERENCE}
    summaries = [
        _summary(_label(m, s, [t for n, t in used if n == m]), c, ddim[s["cfg"]])
        for (m, s), c in zip(used, cells, strict=True)
    ]
    if any(s.modes is None for s in summaries):
        return sorted(summaries, key=lambda s: -(s.pairwise.value if s.pairwise else 0))
    return sorted(summaries, key=lambda s: (-s.modes.value, s.distance.value))


def _summary(label: str, cells: dict[str, Finished], ddim: dict[str, Finished]) -> Summary:
    """One method's cells by prompt, next to DDIM's."""
    samples = [cell.samples for cell in cells.values()]
    first, n = next(iter(cells.values())), len(samples[0])
    pictures_known = all(s.pictures is not None for s in samples)
    return Summary(
        method=first.method,
        settings=first.settings,
        label=label,
        prompts=len(cells),
        seeds=n,
        even=mean(modes_even(n, s.pictures) for s in samples) if pictures_known else None,
        relative=_ratio([(cells[p].samples, ddim[p].samples) for p in cells])
        if pictures_known
        else None,
        evaluations=mean(cell.evaluations for cell in cells.values()),
        seconds=mean(cell.seconds for cell in cells.values()),
        **{m.key: _over_prompts(m, samples) for m in COLUMNS if m.values or m.statistic},
    )


def _over_prompts(measure: Measure, samples: Sequence[Samples]) -> Estimate | None:
    parts = [e for s in samples if (e := measure.estimate(s)) is not None]
    return stratified(parts, measure.floor, measure.ceiling) if parts else None


def _ratio(pairs: Sequence[tuple[Samples, Samples]]) -> Estimate | None:
    """Modes of all prompts over another method's, with a jackknife interval that leaves a seed of a
    prompt out of both. pairs: one a prompt.
    """
    n = len(pairs[0][0])
    totals = [sum(distinct(pair[k].mode) for pair in pairs) for k in (0, 1)]
    if not totals[1]:
        return None
    value, variance = totals[0] / totals[1], 0.0
    if n < 3:
        return Estimate(value, math.nan, math.nan)
    for pair in pairs:
        up, down = (
            torch.tensor(
                [total - distinct(mode) + distinct(mode[torch.arange(n) != i]) for i in range(n)],
                dtype=torch.float64,
            )
            for total, mode in zip(totals, (s.mode for s in pair), strict=True)
        )
        without = up / down.clamp(min=1)
        variance += float((n - 1) / n * (without - without.mean()).square().sum())
    error = 1.96 * math.sqrt(variance)
    return Estimate(value, max(value - error, 0.0), value + error)


def _label(method: str, used: dict, group: Sequence[dict]) -> str:
    """The method's name, and those of its settings in which it differs within the group."""
    varied = {k: v for k, v in used.items() if len({json.dumps(s[k]) for s in group}) > 1}
    words = (f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in varied.items())
    return ", ".join([method, *words])


def ranking(summaries: Sequence[Summary]) -> str:
    """The summaries as a table of text, in the order given, with their intervals."""
    measures = [m for m in COLUMNS if any(getattr(s, m.key) is not None for s in summaries)]
    return aligned(
        {
            f"{k:>2}  {s.label}": {"prompts": str(s.prompts)}
            | {m.name: as_text(getattr(s, m.key), m.form) for m in measures}
            for k, s in enumerate(summaries, 1)
        }
    )
