import math
import os
import signal

import pytest
import torch
from helpers import same_tensors

from dsd_lab import CFD, DSD, SDS, VSD, DSDStar, distill, distill_images
from dsd_lab.draws import Draws, starting_noise


def test_a_seed_draws_the_same_bits_alone_and_in_a_batch():
    assert torch.equal(starting_noise([3], (5, 7))[0], starting_noise([1, 2, 3], (5, 7))[2])
    alone, batch = Draws([3], (5, 7)), Draws([1, 2, 3], (5, 7))
    for _ in range(3):
        assert torch.equal(alone.uniform()[0], batch.uniform()[2])
        assert torch.equal(alone.normal()[0], batch.normal()[2])
        assert torch.equal(alone.timesteps(20, 980)[0], batch.timesteps(20, 980)[2])
    assert not torch.equal(
        starting_noise([3], (40,))[0], Draws([3], (40,)).normal()[0]
    )  # e* is not drawn again


def test_timesteps_are_drawn_evenly_with_both_ends():
    t = Draws(range(3000), (1,)).timesteps(20, 24)
    count = torch.bincount(t)[20:]
    assert len(count) == 5 and t.min() == 20
    assert (count - 600).abs().max() < 5 * (3000 * 0.2 * 0.8) ** 0.5


def test_steps_are_detached_copies(mixture):
    run = distill(mixture, "left", SDS(), [0, 1], 5)
    first = next(run)
    kept = first.x.clone()
    first.x.add_(100)
    next(run)
    assert torch.equal(first.x, kept + 100)
    assert run.x.abs().max() < 50
    assert first.index == 1
    assert first.t.shape == (2,)
    assert not first.x.requires_grad


def test_adam_by_hand(mixture):
    """The first Adam step is lr times the sign of g; plain steps are lr times g."""
    run = distill(mixture, "left", SDS(), [0], 5, lr=0.02)
    step = next(run)
    torch.testing.assert_close(step.x.abs(), torch.full((1, 2), 0.02), rtol=1e-4, atol=0)
    method, cond = DSD(form="reference"), mixture.condition("left")
    run = distill(mixture, cond, method, [0], 5, optimizer="plain", lr=0.5)
    g, *_ = method.gradient(
        method.begin(mixture, cond, mixture.noise([0]), 5), torch.zeros(1, 2), 0, Draws([0], (2,))
    )
    torch.testing.assert_close(next(run).x, -0.5 * g)


def test_held_targets(mixture):
    """With plain steps of size 1/2, holding x - g for two steps covers 3/4 of the way to it, for
    one evaluation.
    """
    method = DSD(form="reference")
    first = distill(mixture, "left", method, [0], 8, optimizer="plain", lr=1.0)
    one = next(first).x  # a whole step: x - g
    run = distill(mixture, "left", method, [0], 8, optimizer="plain", lr=0.5, refresh=2)
    next(run)
    before = mixture.evaluations
    torch.testing.assert_close(next(run).x, 0.75 * one)
    assert mixture.evaluations == before


def test_starts(mixture):
    given = torch.ones(2, 2)
    assert torch.equal(distill(mixture, "left", SDS(), [0, 1], 5, start=given).x, given)
    assert torch.equal(distill(mixture, "left", SDS(), [0, 1], 5).x, torch.zeros(2, 2))
    cond = mixture.condition("left")
    x0 = mixture.predict_guided(mixture.noise([0, 1]), 999, cond, 7.5).x0
    for method in (SDS(), DSD(), DSDStar()):
        torch.testing.assert_close(distill(mixture, "left", method, [0, 1], 5, start="x0hat").x, x0)


def test_ctrl_c_returns_what_there_is(mixture):
    seen = []

    def interrupt(run):
        seen.append(run.index)
        if run.index == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    run = distill(mixture, "left", DSD(), [0], 10).finish(interrupt)
    assert run.index == 3
    assert not run.finished
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.equal(
        run.finish().x, distill(mixture, "left", DSD(), [0], 10).finish().x
    )  # and it goes on whole


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(seeds=[]), "empty"),
        (dict(seeds=[0.5]), "int"),
        (dict(seeds=["1"]), "int"),
        (dict(seeds=[-1]), "int"),
        (dict(seeds=3), "sequence"),
        (dict(steps=0), "steps must be an int of at least 1"),
        (dict(steps=2.5), "steps"),
        (dict(refresh=0), "refresh"),
        (dict(lr=0.0), "lr"),
        (dict(lr=float("nan")), "lr"),
        (dict(start="ones"), "zeros, x0hat"),
        (dict(start=torch.zeros(3, 2)), "shape"),
        (dict(optimizer="sgd"), "adam, plain"),
        (dict(method="sds"), "method object"),
        (dict(cond="lefty"), 'did you mean "left"'),
        (dict(method=DSDStar(), steps=1000), r"1\.\.999"),
    ],
)
def test_bad_input(settings, message, mixture):
    settings = dict(cond="left", method=SDS(), seeds=[0], steps=5) | settings
    with pytest.raises((ValueError, TypeError), match=message):
        distill(mixture, **settings)


def test_a_run_stops_before_a_value_that_is_not_finite(mixture, monkeypatch):
    def gradient(self, state, x, step, draws):
        g = torch.zeros_like(x)
        g[1] = math.nan if step == 3 else 0.0
        return g, torch.tensor([500, 600]), state

    monkeypatch.setattr(SDS, "gradient", gradient)
    run = distill(mixture, "left", SDS(), [0, 1], 8, refresh=2)
    with pytest.raises(ValueError, match=r"not finite at ask 3, t = \[600\], items \[1\]"):
        run.finish()
    assert run.index == 6 and run.x.isfinite().all()


def test_a_step_that_spoils_x_is_taken_back(mixture, monkeypatch):
    def gradient(self, state, x, step, draws):
        return torch.full_like(x, 1e38 if step == 2 else 0.0), torch.tensor([500]), state

    monkeypatch.setattr(SDS, "gradient", gradient)
    run = distill(mixture, "left", SDS(), [0], 8, optimizer="plain", lr=1e30, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"x is not finite after step 3, t = \[500\].* lower lr"):
        run.finish()
    assert run.index == 2 and run.x.isfinite().all()


WHOLE = [  # a method, and what it keeps from step to step
    SDS(),  # nothing but its draws
    CFD(gamma=0.5),  # tensors
    DSD(form="reference"),  # draws for steps ahead
    VSD(particles="network"),  # a network, trained in place
]


@pytest.mark.parametrize("refresh", [1, 2])
@pytest.mark.parametrize("optimizer", ["adam", "plain"])
@pytest.mark.parametrize("method", WHOLE, ids=str)
def test_a_step_that_fails_changes_nothing(method, optimizer, refresh, mixture, monkeypatch):
    """Not x, nor the optimiser, the generators and what the method keeps: the run goes on as if it
    had never been, to the bit.
    """
    run, other = (
        distill(mixture, "left", method, [0, 1], 8, optimizer=optimizer, refresh=refresh)
        for _ in range(2)
    )
    for _ in range(4):
        next(run), next(other)
    before = {name: value.clone() for name, value in run.state_dict().items()}
    step = type(run.optimizer).step

    def fails(self, *args):
        step(self, *args)
        run.x[0] = math.nan

    for error, attempt in ((ValueError, fails), (KeyboardInterrupt, interrupted)):
        with monkeypatch.context() as patch:
            patch.setattr(type(run.optimizer), "step", attempt)
            for _ in range(2):
                with pytest.raises(error):
                    next(run)
        assert same_tensors(before, run.state_dict())
    run.finish()
    assert same_tensors(run.state_dict(), other.finish().state_dict())


def interrupted(*args):
    raise KeyboardInterrupt


def test_a_network_beside_the_run_is_not_spoilt(mixture):
    run = distill(mixture, "left", VSD(particles="network"), [0, 1], 8)
    next(run)
    before = {name: value.clone() for name, value in run.state_dict().items()}
    weight = run.state.weights["0.weight"]
    weight.register_hook(lambda slope: slope * math.nan)
    with pytest.raises(ValueError, match=r"loss of e_phi.* not finite at t = .*lower lr"):
        next(run)
    assert same_tensors(before, run.state_dict())


def test_a_start_that_is_not_finite(mixture):
    start = torch.tensor([[0.0, math.inf]], dtype=torch.float32)
    with pytest.raises(ValueError, match="the start is not finite"):
        distill(mixture, "left", SDS(), [0], 8, start=start)


def test_points_have_no_pictures(mixture):
    with pytest.raises(TypeError, match="use distill"):
        distill_images(mixture, "left", SDS(), [0], 5)
