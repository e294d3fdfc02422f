"""The laws that hold for every method: its cost, a seed alone and in a batch, runs that share an
object, runs that stop and go on.
"""

from dataclasses import replace

import pytest
import torch
from helpers import f64, make_mixture, same_tensors

from dsd_lab import (
    CFD,
    DDS,
    DSD,
    RSD,
    SDI,
    SDS,
    VSD,
    ImageSet,
    distill,
    distill_images,
    distill_scene,
)
from dsd_lab.distill import Stage
from dsd_lab.draws import Draws
from dsd_lab.methods import VARIANTS
from dsd_lab.priors import PipelinePrior, ViewSet
from dsd_lab.worlds.toybox.world import resized

METHODS = {variant.label: variant.make() for variant in VARIANTS.values()} | {
    "DSD x0 snap": DSD(form="x0", snap=True),
    "DSD reference snap": DSD(form="reference", snap=True),
    "DSD random": DSD(noise="random"),
    "DSD reference random": DSD(form="reference", noise="random", anneal="linear"),
    "SDI noisy": SDI(extra_noise=0.3),
    "CFD renewed": CFD(gamma=0.3),
    "CFD ddim": CFD(weight="ddim"),
    "DDS with a source": DDS(source_prompt="cold"),
}
ALONE = {n: m for n, m in METHODS.items() if not isinstance(m, (VSD, RSD))}  # seeds are independent
IN_3D = {name: m for name, m in METHODS.items() if m.for_scenes}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_scene_method = pytest.mark.parametrize(
    "method, refresh", list(zip(IN_3D.values(), [1, 3] * len(IN_3D), strict=False)), ids=IN_3D
)


@pytest.fixture
def weather():
    prior = make_mixture("warm", "cold")
    prior.preferred_batch = 6  # so that what DSD makes ahead is cut by a checkpoint
    return prior


@pytest.fixture
def views(toy_world):
    return ViewSet(resized(toy_world, 16))


@pytest.fixture(scope="module")
def network():
    from pipelines import make_pipe

    return PipelinePrior(make_pipe("sd15"), device="cpu")


# ---- what a method is


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_says_what_it_changes(variant):
    method = variant.make()
    assert method.cfg == 7.5 and variant.make(cfg=2.0) == replace(method, cfg=2.0)
    changed = ", ".join(f"{name}={value!r}" for name, value in variant.settings.items())
    assert str(method) == (f"{method.name}({changed})" if changed else method.name)
    assert variant.label.startswith(method.name)


class NotedDraws(Draws):
    """Draws that note what was asked for, in order."""

    def __init__(self, *args):
        super().__init__(*args)
        self.calls = []

    def uniform(self):
        self.calls.append("u")
        return super().uniform()

    def normal(self):
        self.calls.append("n")
        return super().normal()

    def timesteps(self, low, high):
        t = super().timesteps(low, high)
        self.calls[-1:] = [f"t {low}..{high}"]
        return t


@pytest.mark.parametrize(
    "name, calls",
    [
        *(
            (name, "t 20..980, n")
            for name in (
                "SDS",
                "CSD",
                "NFSD",
                "DDS",
                "VSD",
                "VSD entropy 0.5",
                "RFDS",
                "RFDS-Rev",
                "RSD",
            )
        ),
        ("PDS", "t 20..980, n, n"),
        ("VSD network", "t 20..980, n, t 0..999, n"),
        ("ASD", "t 500..980, u, n"),
        ("ISM", "t 20..980"),
        ("ConsistentODE", "t 100..299"),
        ("SDI", "u"),
        ("SDI noisy", "u, n"),
        ("CFD renewed", "n"),
        ("DSD reference", "u"),
        ("DSD reference random", "u, n"),
        ("DSD random", "n"),
        *(
            (name, "")
            for name in ("SDI cached", "FSD", "CFD", "DSD", "DSD x0", "DSD unit gain", "DSD*")
        ),
    ],
)
def test_what_a_step_draws_in_which_order(name, calls, weather):
    """The order is part of what a seed means; u is of t' or tau, n the noise."""
    weather.preferred_batch = 1
    method, e_star = METHODS[name], weather.noise([0, 1])
    draws = NotedDraws([0, 1], weather.shape)
    method.gradient(method.begin(weather, weather.condition("warm"), e_star, 9), e_star, 0, draws)
    assert ", ".join(draws.calls) == calls


# ---- the cost


def counts(method, prior, prompt, seeds, steps):
    """Predictions that a run has made: at its beginning, after its first step, in all."""
    before = prior.evaluations
    run = distill(prior, prompt, method, seeds, steps, start="zeros")  # x0hat may cost one more
    begun = prior.evaluations - before
    next(run)
    first = prior.evaluations - before
    run.finish()
    return begun, first, prior.evaluations - before


@pytest.mark.parametrize("cfg", [1.0, 7.5])
@every_method
def test_evaluations_are_exact(method, cfg, weather):
    method = replace(method, cfg=cfg)
    each, total = method.evaluations(weather), method.total_evaluations(weather, 12)
    assert counts(method, weather, "warm", [0, 1, 2], 12)[2] == 3 * total
    assert total <= each.begin + 12 * each.step  # the first step is the dearest
    weather.preferred_batch = 1  # so that nothing is made ahead
    begun, first, _ = counts(method, weather, "warm", [0, 1, 2], 12)
    assert (begun, first) == (3 * each.begin, 3 * (each.begin + each.step))


@pytest.mark.parametrize("name", ["SDS", "DSD", "SDI cached", "DDS with a source", "VSD lora"])
def test_evaluations_are_exact_on_a_network(name, network):
    method = VSD(particles="lora") if name == "VSD lora" else METHODS[name]
    if name == "DDS with a source":
        method = replace(method, source_prompt="a cat")
    total = counts(method, network, "a red dragon", [3, 4], 2)[2]
    assert total == 2 * method.total_evaluations(network, 2)


@pytest.mark.parametrize("method", IN_3D.values(), ids=IN_3D)
def test_evaluations_are_exact_in_3d(method, views):
    """Once for every view of the bank, then for the views of each ask: two of six."""
    begin = method.evaluations(views).begin
    scene_run(views, method, 6, refresh=1).finish()
    assert views.evaluations == 6 * begin + 2 * (method.total_evaluations(views, 6) - begin)


# ---- seeds


@pytest.mark.parametrize("method", ALONE.values(), ids=ALONE)
def test_a_seed_gives_the_same_result_alone_and_in_a_batch(method, small_world):
    prior = ImageSet(small_world)
    alone = distill(prior, "warm", method, [5], 20, dtype=f64).finish().x[0]
    batch = distill(prior, "warm", method, [4, 5, 6], 20, dtype=f64).finish().x[1]
    # SDI's inversions make rounding grow a hundred million times
    torch.testing.assert_close(alone, batch, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", [SDS(), DSD(), CFD()], ids=str)
def test_a_prompt_a_seed(method, small_world):
    prior = ImageSet(small_world)
    both = distill_images(prior, ["warm", "cold"], method, [0, 0], 20)
    cold = distill_images(prior, "cold", method, [0], 20)
    torch.testing.assert_close(both.images[1], cold.images[0], rtol=0, atol=1e-4)
    assert both.images.shape == (2, 3, 8, 8)
    assert 0 <= both.images.min() <= both.images.max() <= 1


# ---- runs that share a method, and runs that stop and go on


@every_method
def test_interleaved_runs_are_what_they_are_alone(method, weather):
    """So the same seeds give the same bits again, and a method object keeps nothing of a run."""
    want = [distill(weather, "warm", method, [seed, 8, 9], 8).finish().x for seed in (0, 1)]
    runs = [distill(weather, "warm", method, [seed, 8, 9], 8) for seed in (0, 1)]
    for _ in zip(*runs, strict=True):
        pass
    assert all(torch.equal(run.x, x) for run, x in zip(runs, want, strict=True))
    assert not torch.equal(*want)


def goes_on(begin, steps):
    """Whether a run that is begun twice goes on from its checkpoints to the same bits."""
    whole, first = begin().finish().state_dict(), begin()
    for stop in steps:
        while first.index < stop:
            next(first)
        saved = first.state_dict()
        second = begin()
        if stop:
            next(second)  # what it has done before is forgotten
        second.load_state_dict(saved)
        saved["x" if "x" in saved else "targets.values"].zero_()  # and what it is given is copied
        assert second.index == stop
        if not same_tensors(second.finish().state_dict(), whole):
            return False
    return True


@pytest.mark.parametrize(
    "method, refresh",
    list(zip(METHODS.values(), [1, 2, 3] * len(METHODS), strict=False)),
    ids=METHODS,
)
def test_a_checkpoint_goes_on_to_the_same_bits(method, refresh, weather):
    assert goes_on(lambda: distill(weather, "warm", method, [0, 1, 2], 9, refresh=refresh), (0, 5))


@pytest.mark.parametrize(
    "method", [SDS(), DSD(), VSD(particles="lora", lr=3e-3)], ids=["SDS", "DSD", "VSD lora"]
)
def test_a_checkpoint_on_a_network_goes_on_to_the_same_bits(method, network):
    cond = network.condition(["a red dragon", "a cat"])
    assert goes_on(lambda: distill(network, cond, method, [0, 1], 4, refresh=2), (0, 3))


# ---- scenes


ONE = (Stage(16, 8, 1.0, 2),)
TWO = (Stage(16, 8, 0.5, 2), Stage(32, 12, 0.5, 1))


def scene_run(prior, method, steps=6, stages=ONE, **settings):
    return distill_scene(prior, "a chair", method, 0, steps, stages=stages, **settings)


@every_scene_method
def test_a_scene_goes_on_from_a_checkpoint_to_the_same_bits(method, refresh, views):
    assert goes_on(lambda: scene_run(views, method, 4, refresh=refresh), (2,))


@pytest.mark.parametrize("name", ["SDS", "DSD x0", "CFD renewed", "VSD network"])
def test_a_scene_goes_on_from_one_stage_into_the_next(name, toy_world):
    prior = ViewSet(toy_world)
    assert goes_on(lambda: scene_run(prior, METHODS[name], 6, TWO, refresh=2), (2, 3, 5))


@pytest.mark.parametrize("name", ["DSD reference", "CFD renewed", "VSD network", "SDI cached"])
def test_interleaved_scenes_are_what_they_are_alone(name, views):
    want = [scene_run(views, METHODS[name], 4).finish().state_dict() for _ in range(2)]
    runs = [scene_run(views, METHODS[name], 4) for _ in range(2)]
    for _ in zip(*runs, strict=True):
        pass
    assert all(same_tensors(run.state_dict(), x) for run, x in zip(runs, want, strict=True))
    assert same_tensors(*want)


@pytest.mark.parametrize("refresh", [1, 3])
def test_a_scene_of_a_joint_prior_goes_on(refresh, toy_world):
    prior = ViewSet(resized(toy_world, 16), joint=True)
    assert goes_on(lambda: scene_run(prior, DSD(form="x0"), 5, refresh=refresh), (2,))


# ---- the caller's own


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("method", [DSD(), VSD(particles="network")], ids=lambda m: m.name)
def test_grad_mode_is_the_callers_own(method, wanted, weather):
    with torch.set_grad_enabled(wanted):
        for _ in distill(weather, "warm", method, [0], 4):
            assert torch.is_grad_enabled() is wanted
