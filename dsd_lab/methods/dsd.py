"""DSD: Diverse Score Distillation (arXiv 2412.06780): the two published forms, and two of ours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import at_least, choice, fraction, positive
from ..draws import Draws
from ..priors import Prior, check_cfg
from ..sampling import Trajectory, ddim
from ..schedule import NoiseSchedule
from .base import ASSIGNED, Defaults, Evaluations, Method, cost, guided_noises, same_t
from .state import State
from .timesteps import at_ratio, between, check_range, check_rho, level, noisier, unit_gain

SPACING = 100  # thousandths of the schedule between the path's nodes
SNAPPED = 20


class Form(NamedTuple):
    """What a form of DSD does unless told otherwise. gain: whether it has one."""

    t_min: float
    shift: float | None
    gain: bool


FORMS = {
    "ode": Form(0.02, None, False),
    "reference": Form(0.32, 0.1, False),
    "unit": Form(0.02, None, True),
    "x0": Form(0.32, 0.1, True),
}


@dataclass(frozen=True)
class DSD(Method):
    """Give every seed its own ODE path from e*, take n from it, and compare two levels of the line
    through x and n.

        x_t = alpha_t x + sigma_t n,    n = e_g(path(t'), t'),    t' > t,  t falls as 1 - sqrt(i/N)
        form="ode"        g = r_t                 ( e_g(x_t, t) - e_r(x_t', t') )  t' = the last t
        form="reference"  g = sigma_t^2           ( e_g(x_t, t) - e_r(x_t', t') )  t' = t + U reach
        form="unit"       g = gain r_t / (1 - rho) ( e_g(x_t, t) - e_r(x_t', t') ) r_t' = r_t / rho
        form="x0"         g = gain r_t            ( e_g(x_t, t) - n )              t' = t + reach
        reach = min(shift (t - t_min), T - 1 - t),    U in [0, 1)

    On the path, "ode" is DDIM. "reference" is the published code's. With the two predictions of x0,
    r_t (e_t - e_t') = (x - x0hat_t) - (r_t / r_t') (x - x0hat_t'): where these agree, the difference
    moves x only 1 - r_t / r_t' of the way, which is little for neighbouring levels. That does for
    pictures, which go where they are put, and not for scenes, which follow slowly. "unit", ours,
    divides it out and keeps the ratio of the levels fixed: x moves the whole way (on the path this
    is not DDIM). "x0", ours, is its limit for rho -> 0 with n held: its target x - g is a one-step
    prediction.
    cfg: guidance; reference_cfg: of e_r; None is the form's own: 1 for "reference", as published (2
    with cfg 8.5 is its branch without Perp-Neg), else cfg, which in "unit" is ours. t_min, t_max:
    the range of t as fractions of the schedule; t_min None is the form's own, 0.32 for "reference"
    and "x0", else 0.02. rho: of "unit", in (0, 1); at the top of the schedule, where r_t / rho lies
    beyond it, t' is the noisiest level and the gain that of rho. gain: 1 moves x the whole way.
    shift: of reach; None is the form's own, 0.1 for "reference" and "x0"; given with "unit", n is
    from t + reach. spacing: timesteps between the path's kept nodes, from T - 1 down; None is 100 of
    1000, and in the ode form on networks, whose paths bend more, 20. snap=True (ours) keeps them 20
    apart, rounds t' up to a node and takes the prediction kept there, so n costs nothing more. For
    ablations: anneal="linear" lets t fall evenly; noise="random" draws n ~ N(0, I) afresh, which
    makes the reference form ASD with a fixed t.
    In 3-D each view has its own last t: that at which its target was last made.
    Source: arXiv 2412.06780, section 4.2 and algorithm 1.
    """

    form: str = "ode"
    reference_cfg: float | None = None
    t_min: float | None = None
    t_max: float = 0.98
    rho: float = 0.5
    gain: float = 1.0
    shift: float | None = None
    spacing: int | None = None
    snap: bool = False
    anneal: str = "sqrt"
    noise: str = "ode"

    name = "DSD"

    def __post_init__(self):
        super().__post_init__()
        choice("form", self.form, FORMS)
        choice("anneal", self.anneal, ("sqrt", "linear"))
        choice("noise", self.noise, ("ode", "random"))
        check_cfg(self.second_cfg)
        check_range(self.lowest, self.t_max)
        check_rho(self.rho)
        if positive("gain", self.gain) != 1 and not FORMS[self.form].gain:
            raise ValueError(
                f'gain goes with form="unit" or "x0"; "{self.form}" has none, got {self.gain}'
            )
        if self.shift is not None:
            fraction("shift", self.shift)
        if self.spacing is not None:
            at_least("spacing", self.spacing)

    @property
    def defaults(self):
        return ASSIGNED if self.form == "ode" else Defaults()

    @property
    def lowest(self) -> float:
        """t_min, or the form's own."""
        return FORMS[self.form].t_min if self.t_min is None else self.t_min

    @property
    def reach(self) -> float | None:
        """shift, or the form's own."""
        return FORMS[self.form].shift if self.shift is None else self.shift

    @property
    def second_cfg(self) -> float:
        """reference_cfg, or the form's own."""
        own = 1.0 if self.form == "reference" else self.cfg
        return own if self.reference_cfg is None else self.reference_cfg

    def t_at(self, step: int, steps: int, schedule) -> int:
        """t of a step, falling with the square root of progress."""
        progress = math.sqrt(step / steps) if self.anneal == "sqrt" else step / steps
        return between(self.t_max, self.lowest, progress, schedule)

    def t_prime_at(self, t: Tensor, last: Tensor, schedule: NoiseSchedule, draws: Draws) -> Tensor:
        """The noisier level t' at which the path is asked for n: int64 (B,). last: t at the step
        before.
        """
        if self.form == "ode":
            return last
        if self.reach is None:
            return at_ratio(t, self.rho, schedule)
        u = draws.uniform() if self.form == "reference" else torch.ones(1)
        return noisier(t, level(self.lowest, schedule), self.reach, u, schedule)

    def begin(self, prior, cond, e_star, steps):
        kept = {"last": same_t(len(prior.schedule) - 1, e_star)}
        if self.noise == "random":
            return State(prior, cond, e_star, steps, kept)
        path = ddim(prior, e_star, cond, cfg=self.cfg, levels=self.nodes(prior))
        block = max(1, prior.preferred_batch // len(e_star))
        return PathState(prior, cond, e_star, steps, kept, path=path, block=block)

    def nodes(self, prior: Prior) -> list[int]:
        """The levels at which the path is kept: a grid from the noisiest timestep, above t_min."""
        schedule, spacing = prior.schedule, self.spacing
        if spacing is None:
            thousandths = prior.path_spacing if self.form == "ode" else SPACING
            spacing = max(1, (SNAPPED if self.snap else thousandths) * len(schedule) // 1000)
        return list(range(len(schedule) - 1, level(self.lowest, schedule), -spacing))

    def start(self, state):
        return super().start(state) if self.noise == "random" else state.path.x0[0]

    def gradient(self, state, x, step, draws):
        schedule = state.schedule
        t = same_t(self.t_at(step, state.steps, schedule), x)
        t_prime, n, state = self.noise_at(state, step, draws)
        if self.form == "unit" and self.reach is not None:
            t_prime = at_ratio(t, self.rho, schedule)
        x_t, x_t_prime = schedule.add_noise(x, t, n), schedule.add_noise(x, t_prime, n)
        points = [(x_t, t, self.cfg), (x_t_prime, t_prime, self.second_cfg)]
        if self.form == "x0":
            (e_t,), reference = guided_noises(state, points[0]), n
        else:
            e_t, reference = guided_noises(state, *points)
        weight = self.weight(t, t_prime, schedule, x)
        return weight * (e_t - reference), t, state.keep(last=t)

    def weight(self, t: Tensor, t_prime: Tensor, schedule: NoiseSchedule, like: Tensor) -> Tensor:
        """Of the difference, shaped to multiply `like`."""
        if self.form == "reference":
            return schedule.at("sigma", t, like) ** 2
        if self.form == "unit":
            return self.gain * unit_gain(t, t_prime, self.rho, schedule, like)
        return self.gain * schedule.at("ratio", t, like)

    def noise_at(self, state: State, step: int, draws: Draws) -> tuple[Tensor, Tensor, State]:
        """t' (B,) and n = e_g(path(t'), t') (B, *shape) of a step, and the state that has them."""
        last, schedule, steps = state.kept["last"], state.schedule, state.steps
        if self.noise == "random":
            t = same_t(self.t_at(step, steps, schedule), last)
            return self.t_prime_at(t, last, schedule, draws), draws.normal(), state
        if not state.has(step):
            levels = []
            for k in range(step, min(step + state.block, steps)):
                t = same_t(self.t_at(k, steps, schedule), last)
                levels.append(self.t_prime_at(t, last, schedule, draws).expand(len(t)))
                last = t
            t = torch.stack(levels)
            t, n = state.snapped(t) if self.snap else (t, state.predicted(t, self.cfg))
            state = replace(state, ahead={"first": torch.tensor(step), "t": t, "n": n})
        k = step - int(state.ahead["first"])
        return state.ahead["t"][k], state.ahead["n"][k], state

    def evaluations(self, prior):
        guided = cost(self.cfg)
        reference = 0 if self.form == "x0" else cost(self.second_cfg)
        if self.noise == "random":
            return Evaluations(0, guided + reference)
        noise = 0 if self.snap else guided
        return Evaluations(len(self.nodes(prior)) * guided, guided + reference + noise)


@dataclass(frozen=True, eq=False, kw_only=True)
class PathState(State):
    """A DSD run: the kept path of e*, and t' and n for a block of steps ahead, since n does not
    depend on x.
    """

    path: Trajectory
    block: int
    ahead: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self):
        path, ahead = self.path, sum(tensor.nbytes for tensor in self.ahead.values())
        return super().nbytes + ahead + path.x_t.nbytes + path.eps.nbytes + path.x0.nbytes

    def has(self, step: int) -> bool:
        """Whether t' and n of a step are kept."""
        if not self.ahead:
            return False
        first = int(self.ahead["first"])
        return first <= step < first + len(self.ahead["n"])

    def predicted(self, t: Tensor, cfg: float) -> Tensor:
        """e_g at the path's points at t, (K, B): (K, B, *shape)."""
        points = self.path.point(t).flatten(0, 1)
        n = self.prior.predict_noise(points, t.flatten(), self.cond.repeat(len(t)), cfg)
        return n.reshape(*t.shape, *n.shape[1:])

    def snapped(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t rounded up to the path's nodes, and the predictions kept there."""
        node, item = self.path.node(t)
        return self.path.t[node], self.path.eps[node, item]

    def select(self, items):
        """Of some items; which come next is not known, so n is made for one step."""
        return replace(super().select(items), path=self.path.select(items), block=1, ahead={})

    def state_dict(self):
        return {**super().state_dict(), **self.ahead}

    def restored(self, tensors):
        state = super().restored(tensors)
        kept = {name: state.kept[name] for name in self.kept}
        ahead = {name: value for name, value in state.kept.items() if name not in kept}
        return replace(state, kept=kept, ahead=ahead)
