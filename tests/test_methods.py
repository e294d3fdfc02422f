import math
from dataclasses import replace

import pytest
import torch
from helpers import ByHand, f64

from dsd_lab import (
    DSD,
    ISM,
    SDI,
    SDS,
    DSDStar,
    GaussianMixture,
    ImageSet,
    NoiseSchedule,
    ddim,
    distill,
)
from dsd_lab.draws import Draws
from dsd_lab.methods import State
from dsd_lab.methods.timesteps import level

# ---- SDS -----------------------------------------------------------------------------------------


def test_sds_mean_gradient_on_a_gaussian(fixed_draws):
    """e is affine in the noise there, so an antithetic pair gives the mean exactly: s^2 e(a x) =
    s^3 a (x - y) / v.
    """
    prior = GaussianMixture({"a": [[2.0, -1.0]]}, width=0.5)
    x = torch.tensor([[0.3, 0.4], [1.0, -2.0]], dtype=f64)
    t, n = torch.tensor([100, 800]), prior.noise([4, 5], f64)
    method = SDS(cfg=1.0)
    state = method.begin(prior, prior.condition("a"), n, 10)
    pair = [method.gradient(state, x, 0, fixed_draws(normal=sign * n, t=t))[0] for sign in (1, -1)]
    a, s = prior.schedule.alpha[t][:, None], prior.schedule.sigma[t][:, None]
    want = s**3 * a * (x - torch.tensor([2.0, -1.0], dtype=f64)) / (s**2 + 0.25 * a**2)
    torch.testing.assert_close((pair[0] + pair[1]) / 2, want, rtol=1e-10, atol=1e-10)


# ---- DSD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ode", "reference", "x0"])
def test_one_dsd_step_by_hand(form, fixed_draws):
    hand, cfg, e_star, x, u = ByHand(), 3.0, 0.7, 0.1, 0.4
    prior = hand.prior()
    # step 2 of 8, t from 0.98 to 0.32: t = floor(1000 (0.66 (1 - sqrt(2/8)) + 0.32)) = 650; t' by
    # form
    t = 650
    t_prime = {
        "ode": math.floor(1000 * (0.66 * (1 - math.sqrt(1 / 8)) + 0.32)),  # the previous t: 746
        "reference": 650 + math.floor(0.4 * 0.1 * (650 - 320)),  # 663
        "x0": 650 + 33,
    }[form]
    assert t_prime == {"ode": 746, "reference": 663, "x0": 683}[form]
    p = hand.move(e_star, 999, 899, cfg)
    p = hand.move(p, 899, 799, cfg)
    p = (
        hand.move(p, 799, t_prime, cfg)
        if t_prime > 699
        else hand.move(hand.move(p, 799, 699, cfg), 699, t_prime, cfg)
    )
    n = hand.eps(p, t_prime, cfg)
    e_t = hand.eps(hand.a(t) * x + hand.s(t) * n, t, cfg)
    x_prime = hand.a(t_prime) * x + hand.s(t_prime) * n
    want = {
        "ode": hand.s(t) / hand.a(t) * (e_t - hand.eps(x_prime, t_prime, cfg)),
        "reference": hand.s(t) ** 2 * (e_t - hand.eps(x_prime, t_prime, 1.0)),
        "x0": hand.s(t) / hand.a(t) * (e_t - n),
    }[form]

    method = DSD(cfg=cfg, form=form, t_min=0.32)
    state = method.begin(prior, prior.condition("a"), torch.tensor([[e_star]], dtype=f64), 8)
    g, at, _ = method.gradient(
        state, torch.tensor([[x]], dtype=f64), 2, fixed_draws(uniform=torch.tensor([u], dtype=f64))
    )
    assert at.tolist() == [t]
    assert g.item() == pytest.approx(want, rel=1e-9)


def test_reference_cfg_guides_the_second_term_alone(mixture, fixed_draws):
    e_star, cond = mixture.noise([0], f64), mixture.condition("left")
    draws = fixed_draws(uniform=torch.tensor([0.5], dtype=f64))

    def g(method):
        return method.gradient(method.begin(mixture, cond, e_star, 8), 0 * e_star + 0.1, 3, draws)[
            0
        ]

    one, two, three = (g(DSD(form="reference", reference_cfg=c)) for c in (1.0, 2.0, 3.0))
    torch.testing.assert_close(two - one, three - two)
    assert (two - one).norm() > 1e-6


def test_t_falls_with_the_square_root_of_progress(mixture):
    method = DSD(form="reference")
    t = [method.t_at(i, 100, mixture.schedule) for i in range(100)]
    assert t[0] == 980
    assert t[25] == 650  # halfway at a quarter
    assert t[99] == math.floor(1000 * (0.66 * (1 - math.sqrt(0.99)) + 0.32))
    assert all(x >= y for x, y in zip(t, t[1:], strict=False))
    draws = Draws(range(500), (2,))
    state = State(mixture, mixture.condition("left"), torch.zeros(500, 2), 100)
    t_prime = method.t_prime_at(state, 25, draws)
    assert 650 <= t_prime.min()
    assert 681 <= t_prime.max() <= 682  # 650 + 0.1 (650 - 320), never reached
    top = method.t_prime_at(state, 0, draws)
    assert top.max() <= 998  # the range is clamped before the random factor


def test_the_switches_for_ablations(mixture, fixed_draws):
    method = DSD(form="reference", anneal="linear")
    assert [method.t_at(i, 4, mixture.schedule) for i in range(4)] == [980, 815, 650, 485]
    cond, e_star = mixture.condition("left"), mixture.noise([0, 1], f64)
    n, u = mixture.noise([8, 9], f64), torch.tensor([0.2, 0.7], dtype=f64)
    method, x = DSD(form="reference", noise="random", shift=0.0), 0 * e_star + 0.3
    state = method.begin(mixture, cond, e_star, 8)
    g, t, _ = method.gradient(state, x, 2, fixed_draws(uniform=u, normal=n))
    s = mixture.schedule
    e_g, e_c = (mixture.predict_noise(s.add_noise(x, t, n), t, cond, cfg) for cfg in (7.5, 1.0))
    torch.testing.assert_close(g, s.sigma[650] ** 2 * (e_g - e_c))


def test_snap_takes_the_kept_prediction(mixture, fixed_draws):
    cond, e_star = mixture.condition("left"), mixture.noise([0, 1], f64)
    method = DSD(form="reference", snap=True)
    assert len(method.nodes(mixture)) >= 34  # every 20 from 999 down to t_min
    state = method.begin(mixture, cond, e_star, 8)
    draws = fixed_draws(uniform=torch.tensor([0.0, 0.9], dtype=f64))
    t_prime, n, _ = method.noise_at(state, 2, draws)
    assert t_prime.tolist() == [659, 679]  # 650 and 679 rounded up to nodes 999 - 20 k
    path = ddim(mixture, e_star, cond, cfg=7.5, levels=list(range(999, 320, -20)))
    for b in range(2):
        torch.testing.assert_close(n[b], path.eps[path.t.tolist().index(t_prime[b].item()), b])


@pytest.mark.parametrize("block", [1, 3, 64])
def test_looking_ahead_changes_nothing(mixture, block, monkeypatch):
    want = distill(mixture, "left", DSD(form="reference"), [0, 1], 20, dtype=f64).finish().x
    monkeypatch.setattr(mixture, "preferred_batch", 2 * block)
    got = distill(mixture, "left", DSD(form="reference"), [0, 1], 20, dtype=f64).finish().x
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_the_ode_form_follows_ddim_when_its_path_does(mixture):
    """With the path kept at every timestep the ODE form with steps of 1 is DDIM on its levels."""
    method = DSD(spacing=1, t_min=0.02)
    cond, e_star = mixture.condition("left"), mixture.noise([0, 1, 2], f64)
    levels = sorted({method.t_at(i, 40, mixture.schedule) for i in range(40)} | {999}, reverse=True)
    # DDIM on the same levels takes the path's points from its own coarser steps: equal as both
    # steps shrink
    run = distill(mixture, cond, method, [0, 1, 2], 40, dtype=f64).finish()
    path = ddim(mixture, e_star, cond, cfg=7.5, levels=levels)
    assert (run.x - path.final).abs().max() < 0.05


# ---- DSD* ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 3.0, 7.5])
@pytest.mark.parametrize("steps", [5, 10, 50])
@pytest.mark.parametrize("kind", ["mixture", "pictures"])
def test_dsd_star_is_ddim(kind, steps, cfg, mixture, small_world):
    prior, prompt = (mixture, "left") if kind == "mixture" else (ImageSet(small_world), "cold")
    run = distill(prior, prompt, DSDStar(cfg=cfg), [0, 1, 2], steps, dtype=f64).finish()
    final = ddim(prior, prior.noise([0, 1, 2], f64), prior.condition(prompt), steps, cfg).final
    assert (run.x - final).norm() <= 1e-9 * final.norm()


# ---- settings ------------------------------------------------------------------------------------


def test_what_is_none_is_the_forms_own():
    """Also in a copy with another form, and only what was changed is said."""
    for form, lowest in (("ode", 0.02), ("reference", 0.32), ("x0", 0.32)):
        assert replace(DSD(), form=form) == DSD(form=form)
        assert replace(DSD(), form=form).lowest == lowest
        assert DSD(form=form, t_min=0.1).lowest == 0.1
    assert str(replace(DSD(), form="reference")) == "DSD(form='reference')"
    assert DSD().t_at(99, 100, NoiseSchedule.stable_diffusion()) < 30
    with pytest.raises(ValueError, match="t_min < t_max"):
        DSD(form="x0", t_max=0.3)


def test_short_schedules_and_schedules_that_end_in_pure_noise():
    """What is a fraction stays one: nodes a tenth of the schedule apart, jumps of one timestep at
    the least; and no method looks where r_t is infinite.
    """
    schedule = NoiseSchedule(NoiseSchedule.stable_diffusion().alphas_cumprod[9::10])
    prior = GaussianMixture({"a": [[1.0, 0.0]], "b": [[0.0, 1.0]]}, schedule=schedule)
    assert DSD().nodes(prior) == list(range(99, 2, -10))
    assert DSD(snap=True).nodes(prior) == list(range(99, 2, -2))
    assert ISM(jump=0.001).jumps(0, 10, schedule) == 98 - 5
    assert distill(prior, "a", ISM(jump=0.004, interval=0.0), [0], 2).finish().finished
    config = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    zero = NoiseSchedule.from_diffusers({**config, "rescale_betas_zero_snr": True})
    assert zero.alphas_cumprod[-1] == 0
    assert level(1.0, zero) == SDI().t_at(0, 10, zero) == 998
    assert level(1.0, NoiseSchedule.stable_diffusion()) == 999


def test_costs_of_the_forms(mixture):
    def step(**settings):
        return DSD(**settings).evaluations(mixture).step

    assert step(form="reference") == 5
    assert step(form="reference", snap=True) == 3
    assert step(form="x0") == 4
    assert step(form="ode") == 6


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SDS(cfg=float("nan")), "finite"),
        (lambda: DSD(cfg=float("inf")), "finite"),
        (lambda: DSDStar(cfg="high"), "number"),
        (lambda: SDS(t_min=0.5, t_max=0.5), "t_min < t_max"),
        (lambda: SDS(t_min=-0.1), "0 <= t_min"),
        (lambda: DSD(t_min=0.99), "t_min < t_max"),
        (lambda: DSD(form="odd"), "ode, reference, x0"),
        (lambda: DSD(shift=-0.1), "shift"),
        (lambda: DSD(spacing=0), "spacing must be an int of at least 1"),
        (lambda: DSD(spacing=True), "spacing must be an int of at least 1"),
        (lambda: DSD(anneal="cosine"), "sqrt, linear"),
        (lambda: DSD(noise="fixed"), "ode, random"),
        (lambda: DSD(reference_cfg=float("nan")), "finite"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
