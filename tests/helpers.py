"""What several test files share: priors that are small, draws that are given, sums done by hand."""

import asyncio
import math
import selectors

import torch

from dsd_lab import GaussianMixture
from dsd_lab.cameras import orbit

f64 = torch.float64
RING = orbit(6)


def make_mixture(*labels):
    """Two labels of two Gaussians each, in the plane."""
    first, second = labels or ("left", "right")
    return GaussianMixture(
        {first: [[-1.0, 0.2], [-0.6, -0.8]], second: [[1.0, 0.5], [0.4, 1.0]]}, width=0.15
    )


def make_toy_world():
    """Three chairs, two ducks and a mug from a ring of six cameras, 32 x 32."""
    from dsd_lab.worlds import ToyboxWorld, make_toys, render

    toys = make_toys(["chair", "chair", "chair", "duck", "duck", "mug"], [0, 1, 2, 0, 1, 0])
    prompts = ("a chair", "a duck", "a mug", *toys.captions)
    views = (render(toys, RING, 32).rgb * 255).round().byte()
    return ToyboxWorld(
        prompts, toys, torch.tensor([0, 0, 0, 1, 1, 2]), torch.arange(6), RING, views
    )


class Asleep(selectors.DefaultSelector):
    """Waits for nothing, and counts the seconds that it would have waited."""

    now = 0.0

    def select(self, timeout=None):
        self.now += max(0.0, timeout or 0.0)
        return super().select(0)


def run_asleep(coroutine):
    """As `asyncio.run`, on a clock that goes only while all sleep: no timer comes early because a
    machine is busy, and nobody waits.
    """

    def new_loop():
        loop = asyncio.SelectorEventLoop(selector := Asleep())
        loop.time = lambda: selector.now
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(coroutine)


def same_tensors(a, b):
    """Whether two dicts hold the same tensors, to the bit."""
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


class FixedDraws:
    """Draws that are given: uniform numbers (B,), normal noise, timesteps."""

    def __init__(self, uniform=None, normal=None, t=None):
        self._uniform, self._normal, self._t = uniform, normal, t

    def uniform(self):
        return self._uniform

    def normal(self):
        return self._normal

    def timesteps(self, low, high):
        assert bool(((self._t >= low) & (self._t <= high)).all())
        return self._t


class ByHand:
    """Gaussians N(y, h^2) in one dimension: every number of a step with plain Python floats."""

    h = 0.5

    def __init__(self):
        first, last = math.sqrt(0.00085), math.sqrt(0.012)
        self.acp, product = [], 1.0
        for i in range(1000):
            product *= 1 - (first + (last - first) * i / 999) ** 2
            self.acp.append(product)

    def a(self, t):
        return math.sqrt(self.acp[t])

    def s(self, t):
        return math.sqrt(1 - self.acp[t])

    def eps_of(self, means, x, t, h=h):
        """The noise prediction for an even mixture of N(mean, h^2)."""
        v = self.s(t) ** 2 + self.a(t) ** 2 * h**2
        p = [math.exp(-((x - self.a(t) * m) ** 2) / (2 * v)) for m in means]
        pull = sum(q * (x - self.a(t) * m) for q, m in zip(p, means, strict=True)) / sum(p)
        return self.s(t) / v * pull

    def eps(self, x, t, cfg):
        """Guided: the condition is N(2, h^2), no condition an even mixture of it and N(-1, h^2)."""
        e_c, e_u = self.eps_of([2.0], x, t), self.eps_of([2.0, -1.0], x, t)
        return e_u + cfg * (e_c - e_u)

    def move(self, x, t, to, cfg):
        """One DDIM step."""
        e = self.eps(x, t, cfg)
        return self.a(to) * (x - self.s(t) * e) / self.a(t) + self.s(to) * e

    def prior(self):
        """The same as a prior: prompts "a" and "b"."""
        return GaussianMixture({"a": [[2.0]], "b": [[-1.0]]}, width=self.h)
