"""Lesson 02: where SDS ends, the loss whose gradient it is, and why more steps do not help."""

from functools import cache

import torch
from torch import Tensor

from ...methods import SDS
from ...priors import GaussianMixture
from ...schedule import NoiseSchedule
from .questions import DTYPE, Given, Plane
from .record import Explain, Hint, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion()
alpha, sigma = SCHEDULE.alpha, SCHEDULE.sigma
HEAVY = 0.75  # the share of the heavier of two peaks, at +1 and -1


def where_sds_ends() -> float:
    """Where SDS rests between two peaks when t is only large: x = E_n x0hat(alpha x + sigma n)."""
    peaks = {"two": [[1.0, 0.0], [-1.0, 0.0]]}
    prior = GaussianMixture(peaks, width=0.1, weights={"two": [HEAVY, 1 - HEAVY]})
    half = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    noises, t, x = torch.cat([half, -half]), 980, torch.zeros(2, dtype=DTYPE)
    for _ in range(5):
        x_t = alpha[t] * x + sigma[t] * noises
        x = prior.predict_guided(x_t, t, prior.condition("two"), 1.0).x0.mean(0)
    return float(x[0])


PREDICT = Predict(
    "02.1",
    "0.75 - 0.25: with large noise only, SDS ends at the mean of all answers, where no data is.",
    where_sds_ends,
    {
        "that is the heavier peak, where small noise would lead; large noise sees only the "
        "mean.": lambda: 1.0,
        "that is the lighter peak.": lambda: -1.0,
        "that is the middle; three quarters of the weight are at +1.": lambda: 0.0,
        "that is a weight, not a place: weigh the places +1 and -1 with it.": lambda: HEAVY,
        "the weights are interchanged.": lambda: 1 - 2 * HEAVY,
    },
    within=0.05,
)


@cache
def ask(seed: int) -> Question:
    plane, method = Plane.of(seed), SDS(cfg=1.0)
    state = method.begin(plane.prior, plane.cond, plane.e_star, 10)
    right, _, _ = method.gradient(state, plane.x, 0, Given(plane.t, plane.n))
    x = plane.x.clone().requires_grad_()
    return Question({"epsilon": plane.epsilon, "x": x, "t": plane.t, "n": plane.n}, right)


def gradient_of(loss, arguments: dict) -> Tensor:
    """dL/dx, (4, 2), of a loss that was returned. Raises Hint if x has no part in it."""
    if not torch.is_tensor(loss):
        return loss  # nothing, or no tensor: told as for any function
    if loss.numel() != 1:
        raise Hint(f"a loss is one number; this is of shape {tuple(loss.shape)}. Is a sum missing?")
    if not loss.requires_grad:
        raise Hint("the loss does not depend on x; did `detach` cut x off too?")
    (found,) = torch.autograd.grad(loss, arguments["x"], allow_unused=True)
    if found is None:
        raise Hint("the loss does not depend on x; did `detach` cut x off too?")
    return found


def loss_of(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    weight=lambda t: sigma[t] ** 2,
    reference=1.0,
    stop=lambda target: target.detach(),
    of=lambda difference: 0.5 * difference.square().sum(),
):
    """The loss whose gradient is SDS's, with some of its parts replaced."""

    def loss(epsilon, x, t, n):
        g = weight(t) * (epsilon(a(t) * x + s(t) * n, t) - reference * n)
        return of(x - stop(x - g))

    return loss


def detached_in_part(epsilon, x, t, n):
    g = sigma[t] ** 2 * (epsilon(alpha[t] * x + sigma[t] * n, t) - n)
    return (g * x).sum()


def denoising_loss(epsilon, x, t, n):
    e = epsilon(alpha[t] * x + sigma[t] * n, t)
    return 0.5 * sigma[t] ** 2 * (e - n).square().sum()


IMPLEMENT = Implement(
    "02.2",
    "its gradient is the library's SDS, to rounding.",
    ask,
    {
        "the stop-gradient is missing: without `detach` x cancels out of x - (x - g), and autograd "
        "goes through the network instead.": loss_of(stop=lambda target: target),
        "g is not detached, so autograd goes through the network as well as through x.": (
            detached_in_part
        ),
        "this is the loss that SDS came from, with the network's Jacobian in it; SDS drops it.": (
            denoising_loss
        ),
        "the sign is wrong: the target is x - g.": loss_of(weight=lambda t: -(sigma[t] ** 2)),
        "alpha and sigma are interchanged: x_t = alpha_t x + sigma_t n.": loss_of(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "the weight sigma_t^2 is missing.": loss_of(weight=lambda t: 1.0),
        "the weight is sigma_t; SDS has its square.": loss_of(weight=lambda t: sigma[t]),
        "n is not subtracted: g = w (eps - n).": loss_of(reference=0.0),
        "the factor 1/2 is missing, so the gradient is 2 g.": loss_of(
            of=lambda difference: difference.square().sum()
        ),
        "it is a mean; a sum gives each point its own g, whatever the number of points.": loss_of(
            of=lambda difference: 0.5 * difference.square().mean()
        ),
    },
    read=gradient_of,
    fresh="Use the noise n that is given: it is fresh at each step already.",
)

EXPLAIN = Explain(
    "02.3",
    "more steps only average out more of the noise: SDS arrives where it rests, and stays there.",
    "d",
    {
        "a": "steps get no smaller by being more; and a smaller rate leads to the same place.",
        "b": "the noise is fresh at each step, so no seed follows its own; longer does not help.",
        "c": "the prior here is exact; there is nothing that it has not learned.",
        "e": "cfg is 1 on the ring, and it ends in one place there too.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)
