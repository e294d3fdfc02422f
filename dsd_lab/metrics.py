"""Fidelity, diversity and agreement with DDIM, measured against a prior whose pictures are known.

All distances between pictures are RMSE per channel with pictures in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .priors import ImageSet, Prior

RADIUS = 0.1  # a mode counts as reached by pictures at most this far from it


class Estimate(NamedTuple):
    """A value with its 95 % interval over seeds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Report:
    """What a set of samples of one prompt reaches.

    samples, pictures: how many were made, and how many the prompt has. modes: distinct nearest pictures within
    `RADIUS`; modes_even: the count that so many even draws would give on average; effective_modes: exp(entropy) of how
    the samples fall on the modes; distance: to the nearest picture; outside: share of samples in no mode's radius;
    pairwise: distance between samples; agreement: distance to the reference, seed by seed; same_mode: share of seeds
    with the reference's nearest picture. None where there is too little to tell, or no reference.
    """

    samples: int
    pictures: int
    modes: int
    modes_even: float
    effective_modes: Estimate | None
    distance: Estimate
    outside: float
    pairwise: Estimate | None
    agreement: Estimate | None = None
    same_mode: float | None = None

    def as_dict(self) -> dict:
        return asdict(self)


def distances(images: Tensor, others: Tensor) -> Tensor:
    """RMSE per channel between every pair: images (B, ...), others (N, ...) -> float64 (B, N)."""
    a, b = images.flatten(1).double(), others.flatten(1).double()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(a.shape[1])


def modes_even(samples: int, pictures: int) -> float:
    """The mean number of distinct pictures in `samples` even draws from `pictures`: K (1 - (1 - 1/K)^n)."""
    return pictures * (1 - (1 - 1 / pictures) ** samples)


def effective_modes(mode: Tensor) -> float:
    """exp(entropy) of how often each mode occurs; mode: int64 (n,)."""
    p = torch.unique(mode, return_counts=True)[1].double() / len(mode)
    return float(torch.exp(-(p * p.log()).sum()))


def mean_pairwise(matrix: Tensor) -> float:
    """Mean of the off-diagonal entries of a symmetric distance matrix (n, n)."""
    n = len(matrix)
    return float(matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


def bootstrap(values: Tensor, resamples: int = 2000) -> Estimate:
    """The mean over seeds with its percentile bootstrap interval; values (n,)."""
    values = values.double()
    pick = torch.randint(len(values), (resamples, len(values)), generator=torch.Generator().manual_seed(0))
    low, high = torch.quantile(values[pick].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(values.mean()), low, high)


def jackknife(statistic: Callable[[Tensor], float], samples: int, floor: float = 0.0) -> Estimate:
    """A statistic of a set of seeds with its jackknife interval, value +- 1.96 standard errors, not below `floor`.

    statistic: takes the seeds' positions, int64. For what a bootstrap gets wrong, since it repeats seeds: distances
    between seeds and counts of distinct things. Source: Efron and Stein, Annals of Statistics 9 (1981) 586.
    """
    everyone = torch.arange(samples)
    value = statistic(everyone)
    without = torch.tensor([statistic(everyone[everyone != i]) for i in range(samples)], dtype=torch.float64)
    error = float(((samples - 1) / samples * (without - without.mean()).square().sum()).sqrt())
    return Estimate(value, max(value - 1.96 * error, floor), value + 1.96 * error)


def evaluate(images: Tensor, prior: Prior, prompt: str, reference: Tensor | None = None, radius: float = RADIUS) -> Report:
    """Compare samples of one prompt, (B, 3, H, W) in [0, 1], with the prompt's pictures and with a reference.

    reference: DDIM's pictures from the same seeds, (B, 3, H, W), for the agreement. Raises TypeError for a prior
    without known pictures, ValueError for shapes or values that do not fit.
    """
    if not isinstance(prior, ImageSet):
        raise TypeError(f"evaluate needs a prior whose pictures are known (an ImageSet), got {prior.name}")
    pictures = prior.world.images(prompt)
    for name, batch in (("images", images), ("reference", reference)):
        if batch is not None and (batch.ndim != 4 or tuple(batch.shape[1:]) != prior.shape or not len(batch)):
            raise ValueError(f"{name} must be (B, {', '.join(map(str, prior.shape))}) with B >= 1, got {tuple(batch.shape)}")
        if batch is not None and not bool(((batch >= 0) & (batch <= 1)).all()):
            raise ValueError(f"{name} must lie in [0, 1], got {batch.min():.3f} to {batch.max():.3f}; decode them first")
    if reference is not None and len(reference) != len(images):
        raise ValueError(f"{len(images)} images but {len(reference)} references; give one a seed, in the same order")
    n = len(images)
    distance, mode = distances(images, pictures).min(1)
    reached = mode[distance <= radius]
    between = distances(images, images)
    agreement = same = None
    if reference is not None:
        agreement = bootstrap((images.double() - reference.double()).flatten(1).square().mean(1).sqrt())
        same = float((mode == distances(reference, pictures).argmin(1)).double().mean())
    return Report(
        samples=n, pictures=len(pictures), modes=len(reached.unique()), modes_even=modes_even(n, len(pictures)),
        effective_modes=jackknife(lambda i: effective_modes(reached[i]), len(reached), floor=1.0) if len(reached) > 2 else None,
        distance=bootstrap(distance), outside=float((distance > radius).double().mean()),
        pairwise=jackknife(lambda i: mean_pairwise(between[i][:, i]), n) if n > 2 else None,
        agreement=agreement, same_mode=same,
    )


def table(reports: Mapping[str, Report]) -> str:
    """The reports as aligned lines of text, a heading and one a method, with their intervals."""
    def effective(e):
        return f"{e.value:.1f} [{e.low:.1f}, {e.high:.1f}]" if e else "-"
    rows = [("", "modes", "even", "effective", "distance", "outside", "pairwise", "agreement", "same mode")]
    for name, r in reports.items():
        rows.append((name, f"{r.modes}/{r.pictures}", f"{r.modes_even:.1f}", effective(r.effective_modes), str(r.distance),
                     f"{r.outside:.0%}", str(r.pairwise or "-"), str(r.agreement or "-"),
                     "-" if r.same_mode is None else f"{r.same_mode:.0%}"))
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(width[0]), *map(str.rjust, row[1:], width[1:])]) for row in rows)
