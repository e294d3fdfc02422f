"""How methods choose t: drawn from a range, fixed or annealed, or falling; all as fractions of the
schedule.

On a flow's levels the ends of a range are read as Stable Diffusion's, and mean the levels of the
same r_t (`NoiseSchedule.level`; `repr(prior.schedule)` prints them). Distances, such as a shift, a
gap or a jump, are fractions of the schedule's own number of levels.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import number
from ..draws import Draws
from ..schedule import NoiseSchedule
from ..shapes import Batch, Times
from .base import Method
from .state import State


class RandomMethod(Method):
    """A method that draws t and fresh noise for each seed at each step."""

    @abstractmethod
    def range_at(self, step: int, steps: int, schedule: NoiseSchedule) -> tuple[int, int]:
        """The lowest and the highest t of a step."""

    def draw_t(self, state: State, step: int, draws: Draws) -> Times:
        """t ~ U{lowest..highest} of each seed for a step: int64 (B,)."""
        return draws.timesteps(*self.range_at(step, state.steps, state.schedule))

    def draw_point(
        self, state: State, x: Batch, step: int, draws: Draws
    ) -> tuple[Times, Batch, Batch]:
        """t (B,), n ~ N(0, I) and x_t = alpha_t x + sigma_t n, both (B, *shape)."""
        t, n = self.draw_t(state, step, draws), draws.normal()
        return t, n, state.schedule.add_noise(x, t, n)


@dataclass(frozen=True)
class UniformMethod(RandomMethod):
    """A method that draws t ~ U{t_min..t_max} for each seed; t_min, t_max: fractions of the
    schedule.
    """

    t_min: float = 0.02
    t_max: float = 0.98

    def __post_init__(self):
        super().__post_init__()
        check_range(self.t_min, self.t_max)

    def range_at(self, step, steps, schedule):
        return schedule.level(self.t_min), schedule.level(self.t_max)


@dataclass(frozen=True)
class AnnealedMethod(RandomMethod):
    """A method that draws t from a range whose ends move linearly over the run.

    t_min, t_max: (at the beginning, at the end), fractions of the schedule.
    """

    t_min: tuple[float, float] = (0.02, 0.02)
    t_max: tuple[float, float] = (0.98, 0.5)

    def __post_init__(self):
        super().__post_init__()
        for name, pair in (("t_min", self.t_min), ("t_max", self.t_max)):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError(
                    f"{name} is a pair of fractions (at the beginning, at the end) "
                    f"such as (0.98, 0.5), got {pair!r}"
                )
        for ends in zip(self.t_min, self.t_max, strict=True):
            check_range(*ends)

    def range_at(self, step, steps, schedule):
        progress = step / steps
        return between(*self.t_min, progress, schedule), between(*self.t_max, progress, schedule)


@dataclass(frozen=True)
class FallingMethod(Method):
    """A method whose t falls linearly from t_max to t_min, the same for all seeds; both fractions
    of the schedule.
    """

    t_min: float = 0.02
    t_max: float = 0.98

    def __post_init__(self):
        super().__post_init__()
        check_range(self.t_min, self.t_max)

    def t_at(self, step: int, steps: int, schedule: NoiseSchedule) -> int:
        """t of a step."""
        return between(self.t_max, self.t_min, step / steps, schedule)


def between(first: float, last: float, progress: float, schedule: NoiseSchedule) -> int:
    """The timestep at a fraction that moves from `first` to `last` as progress goes from 0 to 1."""
    return schedule.level(first + (last - first) * progress)


def noisier(
    t: Times, lowest: int, shift: float, u: Float[Tensor, "batch"], schedule: NoiseSchedule
) -> Times:
    """t' = t + floor( u min(shift (t - lowest), T - 1 - t) ) of each item: int64 (B,).

    u: (B,), in [0, 1]. The range is clamped before the random factor, so t' = T - 1 only for u = 1.
    """
    reach = (shift * (t - lowest).double()).minimum(len(schedule) - 1 - t)
    return t + (u * reach).floor().long()


def at_ratio(t: Times, rho: float, schedule: NoiseSchedule) -> Times:
    """The lowest t' with r_t' >= r_t / rho of each item, or the noisiest level: int64 (B,).

    So r_t / r_t' is rho, or a little less; only where r_t / rho is beyond the schedule it is more.
    """
    last = schedule.last
    wanted = schedule.ratio[t] / rho
    return torch.searchsorted(schedule.ratio[: last + 1], wanted).clamp(max=last)


def unit_gain(
    t: Times, t_prime: Times, rho: float, schedule: NoiseSchedule, like: Tensor
) -> Tensor:
    """r_t / (1 - r_t / r_t'), shaped to multiply `like`: with this weight the difference of two
    levels moves x the whole way. At the top of the schedule, where r_t / r_t' is above rho, the
    gain stays that of rho.
    """
    ratio = schedule.at("ratio", t, like)
    return ratio / (1 - (ratio / schedule.at("ratio", t_prime, like)).clamp(max=rho))


def check_rho(rho: float) -> None:
    """Raises ValueError unless 0 < rho < 1."""
    if not 0 < rho < 1:
        raise ValueError(f"rho is the ratio r_t / r_t' of two levels, in (0, 1), got {rho}")


def check_range(t_min: float, t_max: float) -> None:
    """Raises ValueError unless 0 <= t_min < t_max <= 1, as fractions of the schedule."""
    for name, value in (("t_min", t_min), ("t_max", t_max)):
        number(name, value, "0.5, a fraction of the schedule")
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(
            f"t_min and t_max are fractions of the schedule with 0 <= t_min < t_max <= 1, "
            f"got t_min={t_min}, t_max={t_max}"
        )
