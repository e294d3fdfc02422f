"""Lesson 13: the weight of the loss, the loss, and what an exact prior cannot do."""

from functools import cache

import torch
from torch import Tensor

from ...schedule import NoiseSchedule
from .questions import DTYPE
from .record import Explain, Implement, Predict, Question

SCHEDULE = NoiseSchedule.stable_diffusion("v_prediction")
alpha, sigma = SCHEDULE.alpha, SCHEDULE.sigma
SNR, GAMMA = 9.0, 5.0


def denoising_loss(*question) -> Tensor:
    """The library's, of one argument after the other."""
    from ...minis.losses import denoising_loss as loss  # brings diffusers, which takes seconds

    return loss(*question)


def weight_of_the_velocity() -> float:
    """min-SNR's weight of the loss on v where the signal-to-noise ratio is 9."""
    share = SNR / (SNR + 1)
    level = NoiseSchedule(torch.tensor([share, share - 1e-9], dtype=DTYPE), "v_prediction")
    x0 = torch.ones(1, 4, dtype=DTYPE)
    weighed, plain = (
        denoising_loss(lambda x_t, t: 0 * x_t, level, x0, (), generator(0), gamma)
        for gamma in (GAMMA, None)
    )
    return float(weighed / plain)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PREDICT = Predict(
    "13.1",
    "min(9, 5) / (9 + 1): an error of x0hat weighs SNR + 1 times as much when it is written in v.",
    weight_of_the_velocity,
    {
        "that is SNR / (SNR + 1); the SNR is capped at 5 first.": lambda: 0.9,
        "that is the weight of an error of x0hat; in v it is divided by SNR + 1.": lambda: GAMMA,
        "that is the weight for a network that predicts noise, min(SNR, 5) / SNR.": lambda: 5 / 9,
        "the cap is missing its place: min(SNR, 5) / (SNR + 1).": lambda: 5 / 6,
        "that is no weight at all, the plain loss on v.": lambda: 1.0,
        "that is 1 / (SNR + 1), the plain loss on x0.": lambda: 0.1,
    },
)


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """What plays the network: some function of the point and the level."""
    return (1.3 * x_t + t.reshape(-1, 1).to(x_t) / 1000).tanh()


@cache
def ask(seed: int) -> Question:
    x0 = torch.randn(4, 6, generator=generator(seed), dtype=DTYPE)
    losses, levels, noises = [], [], []
    for k, item in enumerate(x0.split(1)):
        g = generator(100 * seed + k)  # the draws that the library makes of it
        levels.append(torch.randint(len(SCHEDULE), (1,), generator=g))
        noises.append(torch.randn(item.shape, generator=g))
        again = generator(100 * seed + k)
        losses.append(denoising_loss(network, SCHEDULE, item, (), again, GAMMA))
    noise, t = torch.cat(noises).to(DTYPE), torch.cat(levels)
    return Question({"network": network, "x0": x0, "noise": noise, "t": t}, torch.stack(losses))


def loss_of(
    a=lambda t: alpha[t],
    s=lambda t: sigma[t],
    target=lambda x0, noise, a, s: a * noise - s * x0,
    weight=lambda snr: snr.clamp(max=GAMMA) / (snr + 1),
    snr=lambda a, s: (a / s) ** 2,
    error=lambda difference: difference.square().mean(1),
):
    """The training loss with some of its parts replaced."""

    def loss(network, x0, noise, t):
        a_t, s_t = a(t)[:, None], s(t)[:, None]
        answer = network(a_t * x0 + s_t * noise, t)
        difference = answer - target(x0, noise, a_t, s_t)
        return weight(snr(a_t, s_t)[:, 0]) * error(difference)

    return loss


IMPLEMENT = Implement(
    "13.2",
    "this is the library's training loss, to rounding.",
    ask,
    {
        "the sign of the target is wrong: v = alpha_t eps - sigma_t x_0.": loss_of(
            target=lambda x0, noise, a, s: s * x0 - a * noise
        ),
        "the target adds what it should subtract: v = alpha_t eps - sigma_t x_0.": loss_of(
            target=lambda x0, noise, a, s: a * noise + s * x0
        ),
        "alpha and sigma are interchanged in the target: v = alpha_t eps - sigma_t x_0.": loss_of(
            target=lambda x0, noise, a, s: s * noise - a * x0
        ),
        "the target is the noise; this network predicts the velocity.": loss_of(
            target=lambda x0, noise, a, s: noise
        ),
        "the target is the clean latent; this network predicts the velocity.": loss_of(
            target=lambda x0, noise, a, s: x0
        ),
        "alpha and sigma are interchanged throughout: x_t = alpha_t x_0 + sigma_t eps.": loss_of(
            lambda t: sigma[t], lambda t: alpha[t]
        ),
        "the weight is missing.": loss_of(weight=lambda snr: 1.0),
        "the cap is missing: min(SNR, 5).": loss_of(weight=lambda snr: snr / (snr + 1)),
        "the weight is that for an error of x0hat; for v it is divided by SNR + 1.": loss_of(
            weight=lambda snr: snr.clamp(max=GAMMA)
        ),
        "the weight is that for a network that predicts noise; v's is divided by SNR + 1.": loss_of(
            weight=lambda snr: snr.clamp(max=GAMMA) / snr
        ),
        "SNR is alpha^2 / sigma^2; the square is missing.": loss_of(snr=lambda a, s: a / s),
        "it is a sum; a mean does not grow with the number of values.": loss_of(
            error=lambda difference: difference.square().sum(1)
        ),
        "the error is not squared.": loss_of(error=lambda difference: difference.abs().mean(1)),
    },
    fresh="Noise and levels are given: the library has drawn them.",
)

EXPLAIN = Explain(
    "13.3",
    "its answer is a mean of the folder's pictures, and at the end of a path one is left of it.",
    "a",
    {
        "b": "it has no autoencoder; and what one loses is no way to something new.",
        "c": "it reads prompts, and the mean runs over the prompt's pictures then.",
        "d": "it has learned nothing at all; the mean of the folder's pictures is written down.",
        "e": "without guidance it ends on a picture of the folder, too.",
    },
)

EXERCISES = (PREDICT, IMPLEMENT, EXPLAIN)
