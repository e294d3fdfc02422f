"""e_phi as a network that is trained beside the run: what all such have, and a small one."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...checkpoint import flatten, part, prefixed, restore
from ...draws import Draws
from ...schedule import NoiseSchedule
from ..state import State

FREQUENCIES = tuple(math.pi * 2**k for k in range(5))  # of the features of t / T


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedState(State):
    """A VSD run whose e_phi is trained beside it: weights by name, and their Adam, which go on in
    place.
    """

    weights: dict[str, Tensor]
    adam: torch.optim.Adam

    @abstractmethod
    def e_phi(self, x_t: Tensor, t: Tensor, x: Tensor | None = None) -> Tensor:
        """The network's noise prediction, (B, *shape)."""

    @abstractmethod
    def loss(self, x: Tensor, t: Tensor, n: Tensor) -> Tensor:
        """The denoising loss on the renders x with noise n at t: a scalar."""

    def train(self, x: Tensor, draws: Draws) -> None:
        """One Adam step on the renders x, at timesteps drawn from the whole schedule."""
        self.fit(x, draws.timesteps(0, len(self.schedule) - 1), draws.normal())

    def fit(self, x: Tensor, t: Tensor, n: Tensor) -> None:
        """One Adam step on the renders x with noise n at t."""
        self.adam.zero_grad()
        with torch.enable_grad():
            loss = self.loss(x.detach(), t, n)
            loss.backward()
        slopes = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        if not all(bool(value.isfinite().all()) for value in (loss, *slopes)):
            raise ValueError(
                f"the loss of e_phi, or its gradient, is not finite at t = {t.tolist()}; its "
                "weights are left as they were; lower lr of the method, or give a network in half "
                "precision dtype=torch.float32"
            )
        self.adam.step()

    def state_dict(self):
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        return prefixed("net", weights) | prefixed("adam", flatten(self.adam))

    @torch.no_grad()
    def restored(self, tensors):
        kept = part(tensors, "net")
        for name, weight in self.weights.items():
            weight.copy_(kept[name])
        restore(self.adam, part(tensors, "adam"))
        return self


def adam_for(weights: dict[str, Tensor], lr: float) -> torch.optim.Adam:
    """The optimiser of e_phi."""
    return torch.optim.Adam(weights.values(), lr=lr, foreach=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkState(TrainedState):
    """A VSD run with a network: two layers on the flat x_t, features of t and the item's prompt,
    which predict v.

    prompt: of each item, one-hot (B, P).
    """

    net: nn.Sequential
    prompt: Tensor
    native: NoiseSchedule

    @classmethod
    def begun(cls, prior, cond, e_star: Tensor, steps: int, hidden: int, lr: float):
        """A run at its beginning; the network says v = 0."""
        subjects = cond.subjects()
        labels = list(dict.fromkeys(subjects))
        which = torch.tensor([labels.index(s) for s in subjects]).expand(len(e_star))
        size, features = e_star[0].numel(), 2 * len(FREQUENCIES) + len(labels)
        first, last = nn.Linear(size + features, hidden), nn.Linear(hidden, size)
        draw = torch.randn(first.weight.shape, generator=torch.Generator().manual_seed(0))
        first.weight.data.copy_(draw / math.sqrt(size + features))
        for parameter in (first.bias, last.weight, last.bias):
            nn.init.zeros_(parameter)
        net = nn.Sequential(first, nn.SiLU(), last).to(e_star)
        weights = dict(net.named_parameters())
        return cls(
            prior,
            cond,
            e_star,
            steps,
            weights=weights,
            adam=adam_for(weights, lr),
            net=net,
            prompt=nn.functional.one_hot(which, len(labels)).to(e_star),
            native=NoiseSchedule(prior.schedule.alphas_cumprod, "v_prediction"),
        )

    def select(self, items):
        return replace(super().select(items), prompt=self.prompt[items])

    def e_phi(self, x_t, t, x=None):
        frequencies = torch.tensor(FREQUENCIES).to(x_t)
        phase = t.to(x_t)[:, None] / len(self.schedule) * frequencies
        features = torch.cat([x_t.flatten(1), phase.cos(), phase.sin(), self.prompt], dim=1)
        return self.native.to_eps(self.net(features).reshape(x_t.shape), x_t, t)

    def loss(self, x, t, n):
        return (self.e_phi(self.schedule.add_noise(x, t, n), t) - n).square().mean()
