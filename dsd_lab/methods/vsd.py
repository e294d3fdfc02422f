"""VSD: Variational Score Distillation (ProlificDreamer, arXiv 2305.16213)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..priors import Condition, GaussianMixture, Prior
from ..schedule import NoiseSchedule
from .base import AnnealedMethod, Evaluations, State, check_choice, cost

PARTICLES = ("exact", "network")
FREQUENCIES = tuple(math.pi * 2**k for k in range(5))  # of the network's features of t / T


@dataclass(frozen=True)
class VSD(AnnealedMethod):
    """Subtract the score of what is being made instead of the noise: the batch, as particles, comes to sample the prior.

        g = sigma_t^2 ( e_g(x_t, t) - e_phi(x_t, t) ),    x_t = alpha_t x + sigma_t n,  n ~ N(0, I),  t ~ U{t_min..t_max}
        particles="exact"     e_phi in closed form, for the mixture of Gaussians N(x_j, width^2) at the particles x_j
        particles="network"   e_phi a small network, trained beside the run: one Adam step on |e_phi(x_t2, t2) - n2|^2 a step

    The particles are the items of the batch that have the same prompt, so here, and here alone, the seeds of a batch depend
    on each other. One particle of width 0 is SDS; cfg 1 with all pictures of the prompt as particles of width 0 is at rest.
    cfg: guidance of the first term. t_min, t_max: the range of t as fractions of the schedule, each (at the beginning, at
    the end) and linear between; t2 is drawn from the whole schedule. width: in the prior's space; with 0 particles that
    stand apart do not see each other, and each is back at SDS. hidden, lr: the network's width and learning rate; one
    so small cannot tell all the noise from the render, and what it misses shows as grain.
    Fine-tuning a network prior itself (LoRA), as the paper does, is to come.
    Source: arXiv 2305.16213, algorithm 1; the two forms of e_phi are ours.
    """

    particles: str = "exact"
    width: float = 0.1
    hidden: int = 128
    lr: float = 1e-3

    name = "VSD"

    def __post_init__(self):
        super().__post_init__()
        check_choice("particles", self.particles, PARTICLES)
        if not 0 <= self.width < math.inf:
            raise ValueError(f"width is a standard deviation in the prior's space, at least 0, got {self.width}")
        if isinstance(self.hidden, bool) or not isinstance(self.hidden, int) or self.hidden < 1:
            raise ValueError(f"hidden must be an int of at least 1, got {self.hidden!r}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}")

    def begin(self, prior, cond, e_star, steps):
        if self.particles == "exact":
            return State(prior, cond, e_star, steps)
        return VSDState(prior, cond, e_star, steps, self.hidden, self.lr)

    def gradient(self, state, x, step, draws):
        schedule, cond = state.schedule, state.cond
        t, n = draws.timesteps(*self.range_at(step, state.steps, schedule)), draws.normal()
        x_t = schedule.add_noise(x, t, n)
        e_g = state.prior.predict_noise(x_t, t, cond, self.cfg)
        if self.particles == "exact":
            e_phi = of_particles(x, cond, self.width, state.prior).predict_noise(x_t.flatten(1), t, cond).reshape(x.shape)
        else:
            e_phi = state.e_phi(x_t, t)
            state.train(x, draws.timesteps(0, len(schedule) - 1), draws.normal())
        return schedule.at("sigma", t, x) ** 2 * (e_g - e_phi), t

    def evaluations(self, prior):
        return Evaluations(begin=0, step=cost(self.cfg))


def of_particles(x: Tensor, cond: Condition, width: float, prior: Prior) -> GaussianMixture:
    """The exact prior of the particles x (B, ...), each a Gaussian and labelled with its prompt."""
    prompts = cond.prompt if len(cond) > 1 else cond.prompt * len(x)
    flat = x.flatten(1)
    means = {p: flat[[i for i, other in enumerate(prompts) if other == p]] for p in dict.fromkeys(prompts)}
    return GaussianMixture(means, width, schedule=prior.schedule)


class VSDState(State):
    """A VSD run with a network: two layers on the flat x_t, features of t and the item's prompt, which predict v."""

    def __init__(self, prior, cond, e_star, steps, hidden: int, lr: float):
        super().__init__(prior, cond, e_star, steps)
        labels = list(dict.fromkeys(cond.prompt))
        which = torch.tensor([labels.index(p) for p in cond.prompt]).expand(len(e_star))
        self.prompt = nn.functional.one_hot(which, len(labels)).to(e_star)
        size, features = e_star[0].numel(), 2 * len(FREQUENCIES) + len(labels)
        self.net = nn.Sequential(nn.Linear(size + features, hidden), nn.SiLU(), nn.Linear(hidden, size)).to(e_star)
        g = torch.Generator().manual_seed(0)
        nn.init.zeros_(self.net[2].weight)  # begins at v = 0
        self.net[0].weight.data.copy_(torch.randn(self.net[0].weight.shape, generator=g) / math.sqrt(size + features))
        for layer in (self.net[0], self.net[2]):
            nn.init.zeros_(layer.bias)
        self.of_v = NoiseSchedule(self.schedule.alphas_cumprod, "v_prediction")
        self.adam = torch.optim.Adam(self.net.parameters(), lr=lr, foreach=False)

    def e_phi(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's noise prediction, (B, *shape)."""
        phase = t.to(x_t)[:, None] / len(self.schedule) * torch.tensor(FREQUENCIES).to(x_t)
        v = self.net(torch.cat([x_t.flatten(1), phase.cos(), phase.sin(), self.prompt], dim=1)).reshape(x_t.shape)
        return self.of_v.to_eps(v, x_t, t)

    def train(self, x: Tensor, t: Tensor, n: Tensor) -> None:
        """One Adam step of the noise-prediction loss on the renders x."""
        with torch.enable_grad():
            loss = (self.e_phi(self.schedule.add_noise(x.detach(), t, n), t) - n).square().mean()
            self.adam.zero_grad()
            loss.backward()
        self.adam.step()

    def state_dict(self):
        adam = {f"adam.{i}.{k}": v for i, kept in self.adam.state_dict()["state"].items() for k, v in kept.items()}
        return {f"net.{k}": v for k, v in self.net.state_dict().items()} | adam

    def load_state_dict(self, state):
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        kept: dict[int, dict[str, Tensor]] = {}
        for k, v in state.items():
            if k.startswith("adam."):
                _, i, name = k.split(".")
                kept.setdefault(int(i), {})[name] = v
        self.adam.load_state_dict({**self.adam.state_dict(), "state": kept})
