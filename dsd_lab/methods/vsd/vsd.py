"""VSD: Variational Score Distillation (ProlificDreamer, arXiv 2305.16213)."""

from __future__ import annotations

import itertools
import math
import warnings
import weakref
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...checkpoint import flatten, part, prefixed, restore
from ...priors import Condition, GaussianMixture, PipelinePrior, Prior, Query
from ...schedule import NoiseSchedule
from ..base import AnnealedMethod, Evaluations, State, check_choice, cost

PARTICLES = ("exact", "network", "lora")
LEARNING_RATE = {"exact": 1e-3, "network": 1e-3, "lora": 1e-4}  # the last is the paper's
FREQUENCIES = tuple(math.pi * 2**k for k in range(5))  # of the network's features of t / T


@dataclass(frozen=True)
class VSD(AnnealedMethod):
    """Subtract the score of what is being made instead of the noise: the batch, as particles, comes
    to sample the prior.

        g = sigma_t^2 ( e_g(x_t, t) - e_phi(x_t, t) ),    x_t = alpha_t x + sigma_t n,  n ~ N(0, I),  t ~ U{t_min..t_max}
        particles="exact"     e_phi in closed form, for the mixture of Gaussians N(x_j, width^2) at the particles x_j
        particles="network"   e_phi a small network, trained beside the run: one Adam step on |e_phi(x_t2, t2) - n2|^2 a step
        particles="lora"      e_phi the prior's own network with a LoRA adapter, trained in the same way: the paper's form

    The particles are the items of the batch that have the same prompt, so here, and here alone, the
    seeds of a batch depend on each other. One particle of width 0 is SDS; cfg 1 with all pictures
    of the prompt as particles of width 0 is at rest.
    cfg: guidance of the first term. t_min, t_max: the range of t as fractions of the schedule, each
    (at the beginning, at the end) and linear between; t2 is drawn from the whole schedule. width:
    in the prior's space; with 0 particles that stand apart do not see each other, and each is back
    at SDS. hidden: the small network's width; one so small cannot tell all the noise from the
    render, and what it misses shows as grain. rank: of the adapter, on the attention's projections;
    it is for network priors, knows the prompt (and the camera), and starts as the prior itself.
    Each of its steps costs, beyond the counted predictions, one training pass of the network,
    forward and backward.
    lr: of e_phi's Adam; 0.001, with an adapter 0.0001, unless given.
    Source: arXiv 2305.16213, algorithm 1; the first two forms of e_phi are ours.
    """

    particles: str = "exact"
    width: float = 0.1
    hidden: int = 128
    rank: int = 4
    lr: float | None = None

    name = "VSD"

    def __post_init__(self):
        super().__post_init__()
        check_choice("particles", self.particles, PARTICLES)
        if not 0 <= self.width < math.inf:
            raise ValueError(
                f"width is a standard deviation in the prior's space, at least 0, got {self.width}"
            )
        for name in ("hidden", "rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        if self.lr is None:
            object.__setattr__(self, "lr", LEARNING_RATE[self.particles])
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}")

    def begin(self, prior, cond, e_star, steps):
        if self.particles == "exact":
            return State(prior, cond, e_star, steps)
        if self.particles == "network":
            return NetworkState(prior, cond, e_star, steps, self.hidden, self.lr)
        return LoRAState(prior, cond, e_star, steps, self.rank, self.lr)

    def gradient(self, state, x, step, draws):
        schedule, cond = state.schedule, state.cond
        t, n = draws.timesteps(*self.range_at(step, state.steps, schedule)), draws.normal()
        x_t = schedule.add_noise(x, t, n)
        e_g = state.prior.predict_noise(x_t, t, cond, self.cfg)
        if self.particles == "exact":
            e_phi = (
                of_particles(x, cond, self.width, state.prior)
                .predict_noise(x_t.flatten(1), t, cond)
                .reshape(x.shape)
            )
        else:
            e_phi = state.e_phi(x_t, t)
            state.train(x, draws.timesteps(0, len(schedule) - 1), draws.normal())
        return schedule.at("sigma", t, x) ** 2 * (e_g - e_phi), t

    def evaluations(self, prior):
        return Evaluations(begin=0, step=cost(self.cfg) + (self.particles == "lora"))


def of_particles(x: Tensor, cond: Condition, width: float, prior: Prior) -> GaussianMixture:
    """The exact prior of the particles x (B, ...), each a Gaussian and labelled with its prompt."""
    prompts = cond.prompt if len(cond) > 1 else cond.prompt * len(x)
    flat = x.flatten(1)
    means = {
        p: flat[[i for i, other in enumerate(prompts) if other == p]]
        for p in dict.fromkeys(prompts)
    }
    return GaussianMixture(means, width, schedule=prior.schedule)


class TrainedState(State):
    """A VSD run whose e_phi is trained beside it: its weights by name, and their Adam."""

    def begin_training(self, weights: dict[str, Tensor], lr: float) -> None:
        self.weights, self.adam = weights, torch.optim.Adam(weights.values(), lr=lr, foreach=False)

    def state_dict(self):
        return prefixed("net", {name: weight.detach() for name, weight in self.weights.items()}) | (
            prefixed("adam", flatten(self.adam))
        )

    @torch.no_grad()
    def load_state_dict(self, state):
        kept = part(state, "net")
        for name, weight in self.weights.items():
            weight.copy_(kept[name])
        restore(self.adam, part(state, "adam"))


class NetworkState(TrainedState):
    """A VSD run with a network: two layers on the flat x_t, features of t and the item's prompt,
    which predict v.
    """

    def __init__(self, prior, cond, e_star, steps, hidden: int, lr: float):
        super().__init__(prior, cond, e_star, steps)
        labels = list(dict.fromkeys(cond.prompt))
        which = torch.tensor([labels.index(p) for p in cond.prompt]).expand(len(e_star))
        self.prompt = nn.functional.one_hot(which, len(labels)).to(e_star)
        size, features = e_star[0].numel(), 2 * len(FREQUENCIES) + len(labels)
        self.net = nn.Sequential(
            nn.Linear(size + features, hidden), nn.SiLU(), nn.Linear(hidden, size)
        ).to(e_star)
        g = torch.Generator().manual_seed(0)
        nn.init.zeros_(self.net[2].weight)  # begins at v = 0
        self.net[0].weight.data.copy_(
            torch.randn(self.net[0].weight.shape, generator=g) / math.sqrt(size + features)
        )
        for layer in (self.net[0], self.net[2]):
            nn.init.zeros_(layer.bias)
        self.of_v = NoiseSchedule(self.schedule.alphas_cumprod, "v_prediction")
        self.begin_training(dict(self.net.named_parameters()), lr)

    def select(self, items):
        part = super().select(items)
        part.prompt = self.prompt[items]
        return part

    def e_phi(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's noise prediction, (B, *shape)."""
        phase = t.to(x_t)[:, None] / len(self.schedule) * torch.tensor(FREQUENCIES).to(x_t)
        v = self.net(
            torch.cat([x_t.flatten(1), phase.cos(), phase.sin(), self.prompt], dim=1)
        ).reshape(x_t.shape)
        return self.of_v.to_eps(v, x_t, t)

    def train(self, x: Tensor, t: Tensor, n: Tensor) -> None:
        """One Adam step of the noise-prediction loss on the renders x."""
        with torch.enable_grad():
            loss = (self.e_phi(self.schedule.add_noise(x.detach(), t, n), t) - n).square().mean()
            self.adam.zero_grad()
            loss.backward()
        self.adam.step()


class LoRAState(TrainedState):
    """A VSD run with an adapter of its own on the prior's network, which is off but for e_phi and
    its training.

    Of the attention's projections W, it makes W + B A, with B = 0 in the beginning. It goes when
    the state does.
    Source: LoRA, arXiv 2106.09685.
    """

    numbers = itertools.count()

    def __init__(self, prior, cond, e_star, steps, rank: int, lr: float):
        if not isinstance(prior, PipelinePrior):
            raise ValueError(
                f'particles="lora" adapts the network of a prior, and "{prior.name}" has none; '
                'allowed for exact priors: "exact", "network"'
            )
        super().__init__(prior, cond, e_star, steps)
        self.unet, self.adapter = prior.unet, f"vsd_{next(self.numbers)}"
        if foreign := [
            name for name in getattr(self.unet, "peft_config", {}) if not name.startswith("vsd_")
        ]:
            raise ValueError(
                f"the network has adapters already ({', '.join(foreign)}), which this would switch off; "
                "put them into its weights first: pipe.fuse_lora(), then pipe.unload_lora_weights()"
            )
        weights = add_lora(self.unet, self.adapter, rank)
        weakref.finalize(self, remove_lora, self.unet, self.adapter).atexit = False
        self.begin_training(weights, lr)

    @contextmanager
    def adapted(self):
        """The prior's network with the adapter on."""
        self.unet.set_adapter(self.adapter)
        self.unet.enable_adapters()
        try:
            yield
        finally:
            self.unet.disable_adapters()

    def e_phi(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The adapted network's noise prediction on the condition, (B, *shape)."""
        with self.adapted():
            return self.prior.predict_noise(x_t, t, self.cond)

    def loss(self, x: Tensor, t: Tensor, n: Tensor) -> Tensor:
        """|output - target|^2 of the network at x_t, in what it predicts natively: (B,). For use
        while it is `adapted`.
        """
        a, s = self.schedule.at("alpha", t, x), self.schedule.at("sigma", t, x)
        target = {"epsilon": n, "v_prediction": a * n - s * x, "sample": x}[
            self.schedule.prediction_type
        ]
        # not by `predict`: a training pass is no prediction, and is not counted as one
        output = self.prior._outputs([Query(a * x + s * n, t, self.cond, ("cond",))])[0]["cond"]
        return (output - target).square().flatten(1).sum(1)

    def train(self, x: Tensor, t: Tensor, n: Tensor) -> None:
        """One Adam step of the denoising loss on the renders x."""
        with (
            torch.enable_grad(),
            self.adapted(),
        ):  # also on the way back: what is off gets no gradient
            self.adam.zero_grad()
            # a sum over pixels, as Adam does not see the scale, and the gradient of a mean vanishes
            # in float16
            self.loss(x.detach(), t, n).mean().backward()
        self.adam.step()


def add_lora(unet: nn.Module, name: str, rank: int) -> dict[str, Tensor]:
    """Put a LoRA adapter on the attention of a UNet, switched off. Returns its float32 weights by
    name.

    The same for every name: A ~ U(+-1 / sqrt(inputs)) from a fixed seed, B = 0.
    """
    from peft import LoraConfig

    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
    ):  # peft draws too, from the global generator
        warnings.simplefilter("ignore")  # several runs are several adapters
        unet.add_adapter(
            LoraConfig(
                r=rank, lora_alpha=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]
            ),
            name,
        )
    unet.disable_adapters()
    weights = {
        key.replace(f".{name}", ""): weight
        for key, weight in unet.named_parameters()
        if f".{name}." in key
    }
    g = torch.Generator().manual_seed(0)
    for key, weight in weights.items():
        weight.data = weight.data.float()
        if "lora_A" in key:
            weight.data.copy_(
                (2 * torch.rand(weight.shape, generator=g) - 1) / math.sqrt(weight.shape[1])
            )
    return weights


def remove_lora(unet: nn.Module, name: str) -> None:
    """Take an adapter out of a UNet again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says which adapter comes next; each run sets its own
        unet.delete_adapters(name)
