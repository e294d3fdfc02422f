"""VSD: Variational Score Distillation (ProlificDreamer, arXiv 2305.16213)."""

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from ...checks import at_least, choice, fraction, not_negative, positive
from ...draws import Draws
from ...priors import Condition, GaussianMixture
from ..base import Evaluations, cost
from ..state import State
from ..timesteps import AnnealedMethod
from .lora import LoRAState
from .network import NetworkState

LEARNING_RATE = {"exact": 1e-3, "network": 1e-3, "lora": 1e-4}  # the last is the paper's


@dataclass(frozen=True)
class VSD(AnnealedMethod):
    """Subtract the score of what is being made instead of the noise: the batch, as particles, comes
    to sample the prior.

        g = sigma_t^2 ( e_g(x_t, t) - e_phi(x_t, t) )
        g = sigma_t^2 ( e_g(x_t, t) - entropy e_phi(x_t, t) - (1 - entropy) n )       ESD
        x_t = alpha_t x + sigma_t n,    n ~ N(0, I),    t ~ U{t_min..t_max}
        particles="exact"     e_phi in closed form, for the mixture of Gaussians N(x_j, width^2) at
                              the particles x_j
        particles="network"   e_phi a small network, trained beside the run: one Adam step on
                              |e_phi(x_t2, t2) - n2|^2 a step
        particles="lora"      e_phi the prior's own network with a LoRA adapter, trained in the same
                              way: the paper's form

    The particles of an item are the items of the batch with the same prompt, seen from the same
    camera: with this method, and with it alone, the seeds of a batch depend on each other. One
    particle of width 0 is SDS; cfg 1 with all pictures of the prompt as particles of width 0 is at
    rest.
    entropy: makes it ESD (arXiv 2401.00909), whose e_phi knows no camera: 0 is SDS, 1 keeps all of
    the entropy of the pictures. None is VSD.
    cfg: guidance of the first term. t_min, t_max: the range of t as fractions of the schedule, each
    (at the beginning, at the end) and linear between; t2 is drawn from the whole schedule. width:
    in the prior's space; with 0 particles that stand apart do not see each other, and each is back
    at SDS. hidden: the small network's width; one so small cannot tell all the noise from the
    render, and what it misses shows as grain. rank: of the adapter, on the attention's projections;
    it is for network priors, knows the prompt (and the camera, which the paper drops 10 % of the
    time and this does not), and starts as the prior itself. Each of its steps costs, beyond the
    counted predictions, one training pass of the network, forward and backward.
    lr: of e_phi's Adam; None is 0.001, with an adapter 0.0001.
    Source: arXiv 2305.16213, algorithm 1; the first two forms of e_phi are ours.
    """

    entropy: float | None = None
    particles: str = "exact"
    width: float = 0.1
    hidden: int = 128
    rank: int = 4
    lr: float | None = None

    name = "VSD"

    def __post_init__(self):
        super().__post_init__()
        if self.entropy is not None:
            fraction("entropy", self.entropy)
        choice("particles", self.particles, LEARNING_RATE)
        not_negative("width", self.width, "0.1 (in the prior's space)")
        at_least("hidden", self.hidden)
        at_least("rank", self.rank)
        if self.lr is not None:
            positive("lr", self.lr)

    @property
    def rate(self) -> float:
        """lr, or that of the kind of particles."""
        return LEARNING_RATE[self.particles] if self.lr is None else self.lr

    def begin(self, prior, cond, e_star, steps):
        if self.particles == "exact":
            cameras = self.entropy is None
            return ExactState(prior, cond, e_star, steps, width=self.width, cameras=cameras)
        if self.particles == "network":
            return NetworkState.begun(prior, cond, e_star, steps, self.hidden, self.rate)
        if self.entropy is not None and prior.cameras is not None:
            raise ValueError(
                "ESD's e_phi knows no camera, and an adapter of this prior does; allowed with "
                'entropy: particles="exact" or "network"'
            )
        return LoRAState.begun(prior, cond, e_star, steps, self.rank, self.rate)

    def gradient(self, state, x, step, draws):
        t, n, x_t = self.draw_point(state, x, step, draws)
        e_g = state.prior.predict_noise(x_t, t, state.cond, self.cfg)
        reference = state.e_phi(x_t, t, x)
        if self.entropy is not None:
            reference = self.entropy * reference + (1 - self.entropy) * n
        state.train(x, draws)
        return state.schedule.at("sigma", t, x) ** 2 * (e_g - reference), t, state

    def evaluations(self, prior):
        return Evaluations(begin=0, step=cost(self.cfg, prior) + (self.particles == "lora"))


@dataclass(frozen=True, eq=False, kw_only=True)
class ExactState(State):
    """A VSD run whose e_phi is that of the particles' own mixture, and needs no training.

    cameras: whether views of different cameras are mixtures apart.
    """

    width: float
    cameras: bool = True

    def e_phi(self, x_t: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """The noise prediction for the mixture at the particles x: (B, *shape)."""
        shown = groups(self.cond, len(x), self.cameras)
        label = {what: str(k) for k, what in enumerate(dict.fromkeys(shown))}
        group, flat = tuple(label[what] for what in shown), x.flatten(1)
        means = {
            name: flat[[i for i, other in enumerate(group) if other == name]]
            for name in dict.fromkeys(group)
        }
        mixture = GaussianMixture(means, self.width, schedule=self.schedule)
        return mixture.predict_noise(x_t.flatten(1), t, Condition(group)).reshape(x.shape)

    def train(self, x: Tensor, draws: Draws) -> None:
        pass


def groups(cond: Condition, items: int, cameras: bool = True) -> tuple[Hashable, ...]:
    """What each item shows, and from where: particles are pooled where it is the same."""
    cond = cond.expand(items)
    camera = cond.camera if cameras and cond.camera else (None,) * items
    return tuple(zip(cond.subjects(), camera, strict=True))
