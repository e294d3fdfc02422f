"""Values with their 95 % intervals over seeds."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A value with its 95 % interval over seeds; low and high are nan where there are too few."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """The value and its interval, each in the number format `form`, ".3f" if none is given."""
        value, low, high = (format(number, form or ".3f") for number in self)
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)

    @property
    def bar(self) -> list[list[float]] | None:
        """How far the interval reaches below and above the value, as matplotlib's error bars want
        it; None without an interval.
        """
        if not math.isfinite(self.low + self.high):
            return None
        return [[max(self.value - self.low, 0)], [max(self.high - self.value, 0)]]


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    values = list(values)
    return sum(values) / len(values)


RESAMPLES = 2000


def bootstrap(values: Tensor) -> Estimate:
    """The mean over seeds with its percentile bootstrap interval; values (n,)."""
    values = values.cpu().double()
    n, generator = len(values), torch.Generator().manual_seed(0)
    means = values[torch.randint(n, (RESAMPLES, n), generator=generator)].mean(1)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return Estimate(float(values.mean()), *torch.quantile(means, ends).tolist())


def jackknife(
    statistic: Callable[[Tensor], float],
    samples: int,
    floor: float = 0.0,
    ceiling: float = math.inf,
) -> Estimate:
    """A statistic of a set of seeds with its jackknife interval, value +- 1.96 standard errors,
    from `floor` to `ceiling`.

    statistic: takes the seeds' positions, int64. For what a bootstrap gets wrong, since it repeats
    seeds: distances between seeds and counts of distinct things. Source: Efron and Stein, Annals of
    Statistics 9 (1981) 586.
    """
    everyone = torch.arange(samples)
    value = statistic(everyone)
    without = torch.tensor(
        [statistic(everyone[everyone != i]) for i in range(samples)], dtype=torch.float64
    )
    error = float(((samples - 1) / samples * (without - without.mean()).square().sum()).sqrt())
    return Estimate(value, max(value - 1.96 * error, floor), min(value + 1.96 * error, ceiling))


def stratified(
    parts: Sequence[Estimate], floor: float = 0.0, ceiling: float = math.inf
) -> Estimate:
    """The mean of independent estimates, one a prompt; each side of its interval is theirs added in
    quadrature, from `floor` to `ceiling`.
    """
    value = mean(p.value for p in parts)
    low, high = (math.hypot(*(p.value - p[k] for p in parts)) / len(parts) for k in (1, 2))
    if math.isnan(low + high):
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, max(value - low, floor), min(value + high, ceiling))
