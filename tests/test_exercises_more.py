"""Exercises of lessons 00, 05, 06, 10, 11, 13 and 14: solutions and mistakes as learners write
them.
"""

import pytest
import torch

from dsd_lab.course.exercises import check
from dsd_lab.schedule import NoiseSchedule

schedule = NoiseSchedule.stable_diffusion()
alpha, sigma = schedule.alpha, schedule.sigma


def x0_prediction(predict, x_t, t, cfg):
    e_u, e_c = predict(x_t, t)
    return (x_t - sigma[t] * (e_u + cfg * (e_c - e_u))) / alpha[t]


def step(velocity, x_t, t, to, cfg):
    v_u, v_c = velocity(x_t, t)
    v = v_u + cfg * (v_c - v_u)
    x0, eps = alpha[t] * x_t - sigma[t] * v, alpha[t] * v + sigma[t] * x_t
    return alpha[to] * x0 + sigma[to] * eps


def pixel(density, colour, delta, background):
    light, result = torch.ones(len(density), 1, dtype=torch.float64), 0.0
    for tau, c in zip(density.unbind(1), colour.unbind(1), strict=True):  # from the camera on
        stopped = light * (1 - torch.exp(-tau * delta))[:, None]
        light, result = light - stopped, result + stopped * c
    return result + light * background


def perp_neg(e_u, e_wanted, e_unwanted, w, cfg):
    pos = e_wanted - e_u
    more = torch.zeros_like(pos)
    for w_i, e_i in zip(w, e_unwanted - e_u, strict=True):
        for k in range(len(pos)):
            share = (e_i[k] * pos[k]).sum() / pos[k].square().sum()
            more[k] += w_i[k] * (e_i[k] - share * pos[k])
    return e_u + cfg * (pos + more)


def flow_gradient(velocity, x, n, s, s_prime):
    def noise(level):
        x_s = (1 - level) * x + level * n
        return x_s + (1 - level) * velocity(x_s, level)

    return s / (1 - s) * (noise(s) - noise(s_prime))


def training_loss(network, x0, noise, t):
    a, s = alpha[t][:, None], sigma[t][:, None]
    snr = a**2 / s**2
    error = network(a * x0 + s * noise, t) - (a * noise - s * x0)
    return (snr.clamp(max=5) / (snr + 1) * error**2).mean(1)


def step_on_points(y, points, width, r, r_to):
    away, variance = y[:, None] - points, width**2 + r**2
    weights = (-(away**2).sum(-1) / (2 * variance)).softmax(1)
    x0 = (weights[:, :, None] * (points + width**2 / variance * away)).sum(1)
    return y + (r_to - r) * (y - x0) / r


SOLUTIONS = {"00.1": 208, "00.2": x0_prediction, "00.3": "c"}
SOLUTIONS |= {"05.1": 3.0, "05.2": step, "05.3": "b", "06.1": 0.75, "06.2": pixel, "06.3": "d"}
SOLUTIONS |= {"10.1": 0.4, "10.2": perp_neg, "10.3": "e"}
SOLUTIONS |= {"11.1": 0.75, "11.2": flow_gradient, "11.3": "c"}
SOLUTIONS |= {"13.1": 0.5, "13.2": training_loss, "13.3": "a"}
SOLUTIONS |= {"14.1": 0.796, "14.2": step_on_points, "14.3": "d"}


def swapped(predict, x_t, t, cfg):
    e_c, e_u = predict(x_t, t)
    return (x_t - sigma[t] * (e_u + cfg * (e_c - e_u))) / alpha[t]


def behind_noise_only(predict, x_t, t, cfg):
    e_u, e_c = predict(x_t, t)
    return e_u + cfg * (e_c - e_u)


def stays(velocity, x_t, t, to, cfg):
    return step(velocity, x_t, t, t, cfg)


def stops_at_x0(velocity, x_t, t, to, cfg):
    v_u, v_c = velocity(x_t, t)
    return alpha[t] * x_t - sigma[t] * (v_u + cfg * (v_c - v_u))


def reads_noise(velocity, x_t, t, to, cfg):
    v_u, v_c = velocity(x_t, t)
    eps = v_u + cfg * (v_c - v_u)
    return alpha[to] * (x_t - sigma[t] * eps) / alpha[t] + sigma[to] * eps


def see_through(density, colour, delta, background):
    stops = 1 - torch.exp(-density * delta)
    return (stops[..., None] * colour).sum(1) + (1 - stops.sum(1))[:, None] * background


def from_behind(density, colour, delta, background):
    thickness = (density * delta).flip(1)
    arrives = torch.exp(thickness - thickness.cumsum(1)).flip(1)
    weights = arrives * (1 - torch.exp(-density * delta))
    return (weights[..., None] * colour).sum(1) + (1 - weights.sum(1))[:, None] * background


def subtracts(e_u, e_wanted, e_unwanted, w, cfg):
    more = (w[:, :, None, None] * (e_unwanted - e_u)).sum(0)
    return e_u + cfg * (e_wanted - e_u + more)


def plain(e_u, e_wanted, e_unwanted, w, cfg):
    return e_u + cfg * (e_wanted - e_u)


def compares_pictures(velocity, x, n, s, s_prime):
    def picture(level):
        x_s = (1 - level) * x + level * n
        return x_s - level * velocity(x_s, level)

    return s / (1 - s) * (picture(s) - picture(s_prime))


def learns_noise(network, x0, noise, t):
    a, s = alpha[t][:, None], sigma[t][:, None]
    snr = a**2 / s**2
    error = network(a * x0 + s * noise, t) - noise
    return (snr.clamp(max=5) / (snr + 1) * error**2).mean(1)


def step_to_x0(y, points, width, r, r_to):
    return step_on_points(y, points, width, r, 0.0)


def step_without_width(y, points, width, r, r_to):
    return step_on_points(y, points, 0.0, r, r_to)


# answers beside the known mistakes' own, written as a learner would, and how their hint begins
WRONG = [
    ("00.1", 104, "a guided prediction costs two"),
    ("00.1", 200, "25 steps have 26 ends"),
    ("00.2", swapped, "e_u and e_c are interchanged"),
    ("00.2", behind_noise_only, "this is the guided noise prediction itself"),
    ("00.2", lambda predict, x_t, t, cfg: predict(x_t, t), "it returned tuple, not a tensor"),
    ("05.1", 0.03, "that is plain gradient descent"),
    ("05.1", 0.05, "that is one step of Adam"),
    ("05.2", stays, "this leads back to x_t"),
    ("05.2", stops_at_x0, "this is the x0-prediction"),
    ("05.2", reads_noise, "v is taken for the noise"),
    ("06.1", 1, "twice a half would be all of it"),
    ("06.2", see_through, "nothing hides anything"),
    ("06.2", from_behind, "the sum runs from the wrong end"),
    ("06.2", lambda d, c, *_: c.mean(1), "the result does not depend on density"),
    ("10.1", 1.0, "that is what Perp-Neg leaves"),
    ("10.2", subtracts, "the unwanted texts are subtracted whole"),
    ("10.2", plain, "the unwanted texts are missing"),
    ("11.1", 1.5, "s itself is not multiplied"),
    ("11.2", compares_pictures, "that is the clean picture"),
    ("11.2", lambda *a: 2 * flow_gradient(*a), "the result is 2 times the right one"),
    ("13.1", 0.9, "that is SNR / (SNR + 1)"),
    ("13.2", learns_noise, "the target is the noise"),
    ("13.2", lambda *a: training_loss(*a).mean(), "the shape should be (4,)"),
    ("14.1", 1.6, "that is their whole distance"),
    ("14.1", 0.64, "that is a variance"),
    ("14.2", step_to_x0, "this is the x0-prediction"),
    ("14.2", step_without_width, "the width of what is drawn is missing"),
    ("14.2", lambda y, *_: y, "the result does not depend on points"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_learner_s_own_mistake_gets_its_hint(number, answer, hint):
    verdict = check(number, answer)
    assert not verdict.right and verdict.text.startswith(hint)
