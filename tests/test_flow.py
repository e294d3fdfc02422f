"""Exact priors on a flow's levels: sampling and distillation are the same there."""

from dataclasses import replace

import pytest
import torch
from helpers import make_mixture

from dsd_lab import DSD, GaussianMixture, ImageSet, NoiseSchedule, ddim, ddim_invert, distill
from dsd_lab.methods import VARIANTS, DSDStar, variant

SD3 = NoiseSchedule.flow(3.0)
f64 = torch.float64


@pytest.fixture
def prior(small_world):
    return ImageSet(small_world, schedule=SD3)


@pytest.fixture
def points():
    centres = {"left": [[-1.0, 0.2], [-0.6, -0.8]], "right": [[1.0, 0.5], [0.4, 1.0]]}
    return GaussianMixture(centres, 0.15, schedule=SD3)


def test_an_exact_prior_keeps_a_flows_levels(prior):
    assert prior.schedule.is_flow and prior.schedule.prediction_type == "sample"
    assert prior.schedule.ratio[-1] == torch.inf
    assert prior.at_size(8).schedule.is_flow


@pytest.mark.parametrize("cfg", [1.0, 7.5])
def test_dsd_star_is_ddim(prior, cfg):
    cond = prior.condition("warm")
    path = ddim(prior, prior.noise([0, 1, 2], f64), cond, 40, cfg)
    run = distill(prior, cond, DSDStar(cfg=cfg), [0, 1, 2], 40, dtype=f64).finish()
    assert path.final.std() > 0.01
    torch.testing.assert_close(run.x, path.final, rtol=1e-9, atol=1e-9)


def test_ddim_is_eulers_method_on_the_velocity(points):
    cond, levels = points.condition("left"), SD3.timesteps(30)
    x = points.noise(range(5), f64)  # at the last level, x_flow is the noise itself
    path = ddim(points, x, cond, cfg=3.0, levels=levels)
    time = [SD3.time[t].item() for t in levels] + [0.0]
    for t, now, then in zip(levels, time[:-1], time[1:], strict=True):
        x_t = x * (SD3.alpha[t] + SD3.sigma[t])
        told = points.predict_guided(x_t, t, cond, 3.0)
        x = x + (then - now) * (told.eps - told.x0)
    torch.testing.assert_close(x, path.final, rtol=1e-9, atol=1e-9)


def test_the_noise_is_found_again(points):
    soft = GaussianMixture({"a": [[0.3, 0.1]]}, 0.5, schedule=SD3)
    cond, noise = soft.condition("a"), soft.noise([0, 1], f64)
    up = ddim_invert(soft, ddim(soft, noise, cond, 300, 1.0).final, cond, 300)
    torch.testing.assert_close(up.x_t[-1], noise, rtol=0, atol=0.06)


def test_the_same_distribution_is_sampled_on_both_schedules(points):
    usual, seeds = make_mixture(), range(400)
    shares = []
    for prior in (usual, points):
        cond = prior.condition("left")
        final = ddim(prior, prior.noise(seeds, f64), cond, 60, 1.0).final
        near = torch.cdist(final, prior.means[:2])
        assert near.min(1).values.mean() < 0.25
        shares.append((near.argmin(1) == 0).double().mean())
    assert abs(shares[0] - shares[1]) < 0.1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_method_is_finite_on_a_flow(name, late, points):
    method = variant(name).make()
    if late:
        t_max = getattr(method, "t_max", None)
        if t_max is None or name.startswith("consistent"):
            return
        method = replace(method, t_max=1.0 if isinstance(t_max, float) else (1.0, 0.5))
    run = distill(points, "left", method, [0, 1, 2], 4).finish()
    assert run.x.isfinite().all() and run.x.abs().max() > 0.01


def test_where_a_method_asks_on_a_flow(points):
    """At the levels with the r_t of Stable Diffusion's, though their numbers differ."""
    usual, asked = make_mixture(), []
    for prior in (usual, points):
        run = distill(prior, "left", DSD(), [0], 10)
        asked.append(prior.schedule.ratio[[int(step.t[0]) for step in run]])
    gap = (asked[1] / asked[0] - 1).abs()
    assert gap.max() < 0.12 and gap.mean() < 0.02  # the flow's levels are coarse where r is small
    assert asked[1][0] == SD3.ratio[813]
