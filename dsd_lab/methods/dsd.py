"""DSD: Diverse Score Distillation (arXiv 2412.06780), in three forms."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checks import at_least, choice, fraction
from ..draws import Draws
from ..priors import Prior, check_cfg
from ..sampling import Trajectory, ddim
from .base import ASSIGNED, Defaults, Evaluations, Method, cost, guided_noises, same_t
from .state import State
from .timesteps import between, check_range, level, noisier

FORMS = {"ode": 0.02, "reference": 0.32, "x0": 0.32}  # and the t_min of each
SPACING = 100  # thousandths of the schedule between the path's nodes
SNAPPED = 20


@dataclass(frozen=True)
class DSD(Method):
    """Give every seed its own ODE path from e*, take n from it, and interpolate.

        x_t = alpha_t x + sigma_t n,    n = e_g(path(t'), t'),    t' > t,  t falls as 1 - sqrt(i/N)
        form="ode"        g = r_t       ( e_g(x_t, t) - e_g(x_t', t') )   t' = the previous t
        form="reference"  g = sigma_t^2 ( e_g(x_t, t) - e_r(x_t', t') )   t' = t + U[0,1) reach
        form="x0"         g = r_t       ( e_g(x_t, t) - n )               t' = t + reach
        reach = min(shift (t - t_min), T - 1 - t)

    On the path, "ode" is DDIM. "reference" is the published code's; its e_r is guided by
    reference_cfg (1, as there; 2 with cfg 8.5 is its branch without Perp-Neg). "x0", ours, has a
    one-step prediction as its target x - g.
    cfg: guidance. t_min, t_max: the range of t as fractions of the schedule; t_min None is the
    form's own, 0.02 for "ode" and 0.32 for the others. spacing: timesteps between the path's kept
    nodes, from T - 1 down; None is 100 of 1000, and in the ode form on networks, whose paths bend
    more, 20. snap=True (ours) keeps them 20 apart, rounds t' up to a node and takes the prediction
    kept there, so n costs nothing more. For ablations: anneal="linear" lets t fall evenly;
    noise="random" draws n ~ N(0, I) afresh, which makes the reference form ASD with a fixed t.
    In 3-D t' of the ode form is the run's previous t, also for views that were not asked then.
    Source: arXiv 2412.06780, section 4.2 and algorithm 1.
    """

    form: str = "ode"
    reference_cfg: float = 1.0
    t_min: float | None = None
    t_max: float = 0.98
    shift: float = 0.1
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
        check_cfg(self.reference_cfg)
        check_range(self.lowest, self.t_max)
        fraction("shift", self.shift)
        if self.spacing is not None:
            at_least("spacing", self.spacing)

    @property
    def defaults(self):
        return ASSIGNED if self.form == "ode" else Defaults()

    @property
    def lowest(self) -> float:
        """t_min, or the form's own."""
        return FORMS[self.form] if self.t_min is None else self.t_min

    def t_at(self, step: int, steps: int, schedule) -> int:
        """t of a step, falling with the square root of progress."""
        progress = math.sqrt(step / steps) if self.anneal == "sqrt" else step / steps
        return between(self.t_max, self.lowest, progress, schedule)

    def t_prime_at(self, state: State, step: int, draws: Draws) -> Tensor:
        """The noisier level t' of a step, at which the path is asked for n: int64 (B,)."""
        schedule, steps = state.schedule, state.steps
        if self.form == "ode":
            previous = self.t_at(step - 1, steps, schedule) if step else len(schedule) - 1
            return same_t(previous, state.e_star)
        t = same_t(self.t_at(step, steps, schedule), state.e_star)
        u = draws.uniform() if self.form == "reference" else torch.ones(1)
        return noisier(t, level(self.lowest, schedule), self.shift, u, schedule)

    def begin(self, prior, cond, e_star, steps):
        if self.noise == "random":
            return State(prior, cond, e_star, steps)
        path = ddim(prior, e_star, cond, cfg=self.cfg, levels=self.nodes(prior))
        block = max(1, prior.preferred_batch // len(e_star))
        return PathState(prior, cond, e_star, steps, path=path, block=block)

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
        x_t, x_t_prime = schedule.add_noise(x, t, n), schedule.add_noise(x, t_prime, n)
        if self.form == "x0":
            (e_t,), reference = guided_noises(state, (x_t, t, self.cfg)), n
        else:
            cfg = self.cfg if self.form == "ode" else self.reference_cfg
            e_t, reference = guided_noises(state, (x_t, t, self.cfg), (x_t_prime, t_prime, cfg))
        sigma, ratio = schedule.at("sigma", t, x), schedule.at("ratio", t, x)
        return (sigma**2 if self.form == "reference" else ratio) * (e_t - reference), t, state

    def noise_at(self, state: State, step: int, draws: Draws) -> tuple[Tensor, Tensor, State]:
        """t' (B,) and n = e_g(path(t'), t') (B, *shape) of a step, and the state that has them."""
        if self.noise == "random":
            return self.t_prime_at(state, step, draws), draws.normal(), state
        if not state.has(step):
            ahead = range(step, min(step + state.block, state.steps))
            t = torch.stack([self.t_prime_at(state, k, draws) for k in ahead])
            t, n = state.snapped(t) if self.snap else (t, state.predicted(t, self.cfg))
            state = replace(state, kept={"first": torch.tensor(step), "t": t, "n": n})
        k = step - int(state.kept["first"])
        return state.kept["t"][k], state.kept["n"][k], state

    def evaluations(self, prior):
        guided = cost(self.cfg)
        reference = {"ode": guided, "reference": cost(self.reference_cfg), "x0": 0}[self.form]
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

    @property
    def nbytes(self):
        path = self.path
        return super().nbytes + path.x_t.nbytes + path.eps.nbytes + path.x0.nbytes

    def has(self, step: int) -> bool:
        """Whether t' and n of a step are kept."""
        if not self.kept:
            return False
        first = int(self.kept["first"])
        return first <= step < first + len(self.kept["n"])

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
        cond, path = self.cond.select(items.tolist()), self.path.select(items)
        return replace(self, cond=cond, e_star=self.e_star[items], path=path, block=1, kept={})

    def merge(self, items, part):
        return self
