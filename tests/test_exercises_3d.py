"""Solutions of the exercises of lessons 07, 08, 09 and 12, for test_exercises."""

import pytest
import torch
from device import MOCK

from dsd_lab.course.exercises import EXERCISES, check
from dsd_lab.schedule import NoiseSchedule

schedule = NoiseSchedule.stable_diffusion()
alpha, sigma, r = schedule.alpha, schedule.sigma, schedule.ratio
torch.zeros(1).to(MOCK)  # its first use imports for seconds, which would count as an answer's


def guided(e_u, e_c, cfg):
    return e_u + cfg * (e_c - e_u)


def unit_gain(predict, x, n, t, t_prime, cfg):
    e_t, e_t_prime = (guided(*predict(alpha[k] * x + sigma[k] * n, k), cfg) for k in (t, t_prime))
    return x - r[t] / (1 - r[t] / r[t_prime]) * (e_t - e_t_prime)


def distance(views, objects):
    square = (views[:, None] - objects).square().mean((2, 3, 4, 5))
    return square.sqrt().amin(1)


def joint(x_t, t, y, p):
    square = (x_t - alpha[t] * y).square().sum((1, 2))
    weight = (p.log() - square / (2 * sigma[t] ** 2)).softmax(0)
    return (weight[:, None, None] * y).sum(0)


def dds(predict, x, source, n, t, cfg):
    e_x, e_source = (
        guided(*predict(alpha[t] * clean + sigma[t] * n, t, prompt), cfg)
        for clean, prompt in ((x, "target"), (source, "source"))
    )
    return e_x - e_source


FUNCTIONS = {"07.2": unit_gain, "08.2": distance, "09.2": joint, "12.2": dds}
SOLUTIONS = {"07.1": 0.6, "07.3": "b", "08.1": 0.08, "08.3": "c", "09.1": 4.48, "09.3": "d"}
SOLUTIONS |= {"12.1": 8, "12.3": "e"} | FUNCTIONS


@pytest.mark.parametrize("number", FUNCTIONS)
def test_it_is_right_in_float32_and_on_another_device_too(number):
    def elsewhere(*arguments):
        return FUNCTIONS[number](*arguments).float().to(MOCK)

    verdict = check(number, elsewhere)
    assert verdict.right, verdict


@pytest.mark.parametrize("number", FUNCTIONS)
def test_each_argument_has_a_say(number):
    """An answer that overlooks one of its tensors is told which."""
    arguments = EXERCISES[number].ask(11).arguments
    for place, (name, value) in enumerate(arguments.items()):
        if torch.is_tensor(value):

            def overlooks(*given, place=place):
                replaced = [*given]
                there = torch.linspace(0.1, 0.9, given[place].numel(), dtype=torch.float64)
                replaced[place] = there.reshape(given[place].shape)
                return FUNCTIONS[number](*replaced)

            assert name in check(number, overlooks).text
