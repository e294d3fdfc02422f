"""The list of measures that tables, studies and reports read, and the report of one prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checks import choice, meant
from ..priors import Prior
from ..worlds import PictureWorld
from .estimates import Estimate, bootstrap, jackknife
from .pictures import RADIUS, Samples, distinct, effective_modes, mean_pairwise, modes_even
from .sets import vendi


@dataclass(frozen=True)
class Measure:
    """One thing that is said of samples.

    name: its column's heading. meaning: in words, its interval too. form: the format of its
    numbers. field: the attribute of a `Report`, or of a `tasks.Result`, that holds it, if one does.
    needs: the attribute of `Samples` without which it cannot be told. values: of `Samples`, one a
    seed, whose mean it is, with a bootstrap interval; or statistic: of `Samples` and the seeds'
    positions, with a jackknife interval. floor, ceiling: the least and the most it can be.
    """

    name: str
    meaning: str
    form: str
    field: str = ""
    needs: str = ""
    values: Callable[[Samples], Tensor] | None = None
    statistic: Callable[[Samples, Tensor], float] | None = None
    floor: float = 0.0
    ceiling: float = math.inf

    @property
    def key(self) -> str:
        """The name as an attribute: "same mode" -> "same_mode"."""
        return self.name.lower().replace(" ", "_")

    def estimate(self, samples: Samples) -> Estimate | None:
        """The measure with its interval, nan below three samples, not cut at floor and ceiling;
        None if it cannot be told.
        """
        if self.needs and getattr(samples, self.needs) is None:
            return None
        n, few = len(samples), len(samples) < 3
        if self.values:
            found = bootstrap(self.values(samples))
            return Estimate(found.value, math.nan, math.nan) if few else found
        if few:
            return Estimate(self.statistic(samples, torch.arange(n)), math.nan, math.nan)
        return jackknife(lambda i: self.statistic(samples, i), n, -math.inf)

    def text(self, holder: object) -> str:
        """What a report, or a result, says of it: "-" if nothing."""
        return as_text(getattr(holder, self.field), self.form)


MEASURES = (
    Measure(
        "modes",
        f"distinct pictures of the prompt reached, each within {RADIUS} RMSE",
        ".1f",
        "modes_of_all",
        "nearest",
        statistic=lambda s, i: distinct(s.mode[i]),
    ),
    Measure(
        "nearest",
        "distinct pictures of the prompt that are some sample's nearest, at any distance",
        ".1f",
        "nearest",
        "nearest",
        statistic=lambda s, i: distinct(s.nearest[i]),
    ),
    Measure(
        "even",
        "how many distinct pictures as many even draws would reach on average",
        ".1f",
        "modes_even",
    ),
    Measure(
        "effective",
        "effective number of nearest pictures, exp(entropy), with its jackknife interval",
        ".1f",
        "effective_modes",
        "nearest",
        statistic=lambda s, i: effective_modes(s.nearest[i]),
        floor=1.0,
    ),
    Measure(
        "distance",
        "RMSE to the nearest picture of the prompt, with its bootstrap interval over seeds",
        ".3f",
        "distance",
        "distance",
        values=lambda s: s.distance,
    ),
    Measure(
        "outside",
        f"share of samples farther than {RADIUS} from every picture of the prompt",
        ".0%",
        "outside",
        "distance",
        values=lambda s: s.outside,
        ceiling=1.0,
    ),
    Measure(
        "pairwise",
        "RMSE between samples, with its jackknife interval",
        ".3f",
        "pairwise",
        "pairs",
        statistic=lambda s, i: mean_pairwise(s.between[i][:, i]),
    ),
    Measure(
        "Vendi",
        "how many different samples there seem to be, with its jackknife interval",
        ".1f",
        statistic=lambda s, i: vendi(s.between[i][:, i]),
        floor=1.0,
    ),
    Measure(
        "agreement",
        "RMSE to DDIM's result from the same seed, with its bootstrap interval over seeds",
        ".3f",
        "agreement",
        "agreement",
        values=lambda s: s.agreement,
    ),
    Measure(
        "same mode",
        "share of seeds whose nearest picture is that of DDIM",
        ".0%",
        "same_mode",
        "same_mode",
        values=lambda s: s.same_mode,
        ceiling=1.0,
    ),
    Measure(
        "named",
        "share of samples that the judge takes for their prompt, and not for spoiled",
        ".0%",
        needs="named",
        values=lambda s: s.named,
        ceiling=1.0,
    ),
)
COSTS = (
    Measure("evaluations", "predictions by the prior, a seed", ".0f", "evaluations"),
    Measure("seconds", "time for all seeds together", ".2f", "seconds"),
)


@dataclass(frozen=True)
class Report:
    """What a set of samples of one prompt reaches.

    samples, pictures: how many were made, and how many the prompt has. modes: distinct nearest
    pictures within `RADIUS`; nearest: distinct nearest pictures at any distance; modes_even: the
    count that so many even draws would give on average; effective_modes: exp(entropy) of how the
    samples fall on their nearest pictures; distance: to the nearest picture; outside: share of
    samples in no mode's radius; pairwise: distance between samples; agreement: distance to the
    reference, seed by seed; same_mode: share of seeds with the reference's nearest picture. None
    where there is too little to tell, where there is no reference, or where the prompt's pictures
    are not known.
    """

    samples: int
    pictures: int | None = None
    modes: int | None = None
    nearest: int | None = None
    modes_even: float | None = None
    effective_modes: Estimate | None = None
    distance: Estimate | None = None
    outside: float | None = None
    pairwise: Estimate | None = None
    agreement: Estimate | None = None
    same_mode: float | None = None

    @property
    def modes_of_all(self) -> str | None:
        """Modes reached of the prompt's pictures, "4/12"."""
        return None if self.pictures is None else f"{self.modes}/{self.pictures}"

    @classmethod
    def of(cls, s: Samples) -> Report:
        """What is told of samples."""
        n = len(s)
        report = cls(
            samples=n,
            pairwise=jackknife(lambda i: mean_pairwise(s.between[i][:, i]), n) if n > 2 else None,
            agreement=None if s.agreement is None else bootstrap(s.agreement),
        )
        if s.pictures is None:
            return report
        return replace(
            report,
            pictures=s.pictures,
            modes=distinct(s.mode),
            nearest=distinct(s.nearest),
            modes_even=modes_even(n, s.pictures),
            effective_modes=jackknife(lambda i: effective_modes(s.nearest[i]), n, floor=1.0)
            if n > 2
            else None,
            distance=bootstrap(s.distance),
            outside=float(s.outside.double().mean()),
            same_mode=None if s.same_mode is None else float(s.same_mode.double().mean()),
        )


def evaluate(
    images: Tensor,
    prior: Prior,
    prompt: str,
    reference: Tensor | None = None,
    radius: float = RADIUS,
) -> Report:
    """Compare samples of one prompt, (B, 3, H, W) in [0, 1], with the prompt's pictures, if the
    prior has a world of them, with each other, and with a reference.

    reference: DDIM's pictures from the same seeds, (B, 3, H, W), for the agreement. Raises
    TypeError for a prior of points, ValueError for shapes or values that do not fit.
    """
    if len(prior.shape) != 3:
        raise TypeError(
            f"evaluate needs a prior of pictures, an ImageSet or a pipeline, got {prior.name}"
        )
    return Report.of(Samples.of(images, known_pictures(prior, prompt), reference, radius))


def evaluate_unknown(images: Tensor, reference: Tensor | None = None) -> Report:
    """`evaluate` without any prior: samples against each other and against a reference alone."""
    return Report.of(Samples.of(images, None, reference))


def known_pictures(prior: Prior, prompt: str) -> Tensor | None:
    """The pictures that a prompt has, (N, 3, H, W) in [0, 1]; None if they are not known."""
    return prior.world.images(prompt) if isinstance(prior.world, PictureWorld) else None


# ---- text ----------------------------------------------------------------------------------------


def as_text(value: object, form: str) -> str:
    """A measured value in a table: "-" for None, whole numbers and texts as they are."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int | str) else format(value, form)


def reported(reports: Iterable[Report]) -> list[Measure]:
    """The measures that at least one of the reports says something of."""
    fields = {m.field for r in reports for m in MEASURES if getattr(r, m.field, None) is not None}
    return [m for m in MEASURES if m.field in fields]


def aligned(rows: Mapping[str, Mapping[str, str]]) -> str:
    """Rows {label: {heading: text}}, of the same headings, as lines of text in columns."""
    lines = [["", *next(iter(rows.values()))], *([label, *r.values()] for label, r in rows.items())]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([label.ljust(width[0]), *map(str.rjust, words, width[1:])])
        for label, *words in lines
    )


def table(reports: Mapping[str, Report], columns: Sequence[str] | None = None) -> str:
    """The reports as aligned lines of text, a heading and one a method, with their intervals.

    columns: names of `MEASURES`; by default all that the reports tell.
    """
    by_name = {m.name: m for m in MEASURES if m.field}
    measures = reported(reports.values())
    if columns is not None:
        names = [choice("column", meant(name, by_name) or name, by_name) for name in columns]
        measures = [by_name[name] for name in names]
    return aligned({name: {m.name: m.text(r) for m in measures} for name, r in reports.items()})
