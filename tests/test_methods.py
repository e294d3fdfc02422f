import math
from dataclasses import replace

import pytest
import torch
from helpers import ByHand, f64

from dsd_lab import (
    ASD,
    DSD,
    ISM,
    PDS,
    RFDS,
    RSD,
    SDI,
    SDS,
    VSD,
    DSDStar,
    GaussianMixture,
    ImageSet,
    NoiseSchedule,
    ddim,
    distill,
)
from dsd_lab.draws import Draws

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


@pytest.mark.parametrize("form", ["ode", "reference", "x0", "unit"])
def test_one_dsd_step_by_hand(form, fixed_draws):
    hand, cfg, e_star, x, u = ByHand(), 3.0, 0.7, 0.1, 0.4
    prior = hand.prior()
    # step 2 of 8, t from 0.98 to 0.32: t = floor(1000 (0.66 (1 - sqrt(2/8)) + 0.32)) = 650; t' by
    # form
    t, r = 650, [hand.s(k) / hand.a(k) for k in range(1000)]
    t_prime = {
        "ode": math.floor(1000 * (0.66 * (1 - math.sqrt(1 / 8)) + 0.32)),  # the previous t: 746
        "reference": 650 + math.floor(0.4 * 0.1 * (650 - 320)),  # 663
        "x0": 650 + 33,
        # the first level whose noise is twice as strong beside the signal
        "unit": next(k for k in range(1000) if r[k] >= 2 * r[650]),
    }[form]
    assert t_prime == {"ode": 746, "reference": 663, "x0": 683, "unit": 816}[form]
    p, node = e_star, 999  # the path's nodes above t', then one step to it
    for below in (899, 799, 699):
        if below >= t_prime:
            p, node = hand.move(p, node, below, cfg), below
    p = hand.move(p, node, t_prime, cfg)
    n = hand.eps(p, t_prime, cfg)
    e_t = hand.eps(hand.a(t) * x + hand.s(t) * n, t, cfg)
    x_prime = hand.a(t_prime) * x + hand.s(t_prime) * n
    want = {
        "ode": hand.s(t) / hand.a(t) * (e_t - hand.eps(x_prime, t_prime, cfg)),
        "reference": hand.s(t) ** 2 * (e_t - hand.eps(x_prime, t_prime, 1.0)),
        "x0": r[t] * (e_t - n),
        "unit": r[t] * (e_t - hand.eps(x_prime, t_prime, cfg)) / (1 - r[t] / r[t_prime]),
    }[form]

    method = DSD(cfg=cfg, form=form, t_min=0.32)
    state = method.begin(prior, prior.condition("a"), torch.tensor([[e_star]], dtype=f64), 8)
    state = state.keep(last=torch.tensor([method.t_at(1, 8, prior.schedule)]))
    g, at, _ = method.gradient(
        state, torch.tensor([[x]], dtype=f64), 2, fixed_draws(uniform=torch.tensor([u], dtype=f64))
    )
    assert at.tolist() == [t]
    assert g.item() == pytest.approx(want, rel=1e-9)


def held(method, prior, x, step, steps, n=None):
    """The gradient of DSD at x with n held, by default that of the seed's path; and t, t', n."""
    state = method.begin(prior, prior.condition("a"), prior.noise(range(len(x)), x.dtype), steps)
    if step:
        last = method.t_at(step - 1, steps, prior.schedule)
        state = state.keep(last=torch.full((len(x),), last))
    t_prime, own, state = method.noise_at(state, step, None)
    n = own if n is None else n
    ahead = {"first": torch.tensor(step), "t": t_prime[None], "n": n[None]}
    g, t, _ = method.gradient(replace(state, ahead=ahead), x, step, None)
    return g, t, t_prime, n


def two_gaussians():
    """Two prompts whose pictures spread alike: guidance moves the mean alone."""
    return GaussianMixture({"a": [[2.0, -1.0]], "b": [[-1.0, 0.5]]}, width=0.5)


@pytest.mark.parametrize("form, cfg, step", [("unit", 7.5, 3), ("unit", 7.5, 0), ("ode", 3.0, 5)])
def test_the_difference_of_two_levels_in_predictions_of_x0(form, cfg, step):
    """r_t (e_t - e_t') = (x - x0hat_t) - rho (x - x0hat_t'): unit gain divides by 1 - rho, which at
    the top of the schedule stays that of the setting.
    """
    prior, method = two_gaussians(), DSD(form=form, cfg=cfg)
    x = torch.tensor([[0.3, 0.4], [1.0, -2.0]], dtype=f64)
    g, t, t_prime, n = held(method, prior, x, step, 8)
    schedule, cond = prior.schedule, prior.condition("a")
    x0, x0_prime = (
        prior.predict_guided(schedule.add_noise(x, at, n), at, cond, cfg).x0 for at in (t, t_prime)
    )
    rho = float(schedule.ratio[t[0]] / schedule.ratio[t_prime[0]])
    assert (rho > 0.5) == (step == 0 or form == "ode")
    want = (x - x0) - rho * (x - x0_prime)
    if form == "unit":
        want = want / (1 - min(rho, 0.5))
    torch.testing.assert_close(g, want, rtol=1e-10, atol=1e-10)


def one_gaussian(s0):
    return GaussianMixture({"a": [[0.5, -1.0]]}, width=s0)


@pytest.mark.parametrize("s0", [0.2, 0.5, 2.0])
@pytest.mark.parametrize("form, rho", [("unit", 0.5), ("unit", 0.3), ("unit", 0.8), ("ode", 0.5)])
def test_on_a_gaussian_a_deviation_shrinks_by_the_closed_form(form, rho, s0):
    """For N(mu, s0^2) and n held, x - g = x* + F (x - x*) with
    x* - mu = s0^2 (r + r') n / (r r' - s0^2), and 0 < F < 1 just where r r' > s0^2.
    """
    prior, method = one_gaussian(s0), DSD(form=form, cfg=1.0, rho=rho)
    x = torch.tensor([[0.3, 0.4], [1.0, -2.0]], dtype=f64)
    pulled = set()
    for step in (4, 20, 39):
        g, t, t_prime, n = held(method, prior, x, step, 40)
        r, r2 = (float(prior.schedule.ratio[at[0]]) for at in (t, t_prime))
        v, v2 = s0**2 + r**2, s0**2 + r2**2
        factor = s0**2 / v + r * r2 / v2
        if form == "unit":
            assert r / r2 <= rho
            factor = 1 - r * r2 * (r * r2 - s0**2) / (v * v2)
        mu = torch.tensor([0.5, -1.0], dtype=f64)
        rest = mu + s0**2 * (r + r2) / (r * r2 - s0**2) * n
        torch.testing.assert_close(x - g, rest + factor * (x - rest), rtol=1e-7, atol=1e-7)
        assert (factor < 1) == (r * r2 > s0**2)
        pulled.add(factor < 1)
    assert s0 != 0.5 or pulled == {True, False}  # both sides of the condition


def test_x0_is_the_limit_of_unit_gain():
    """With n held, and the second level so noisy that it says nothing of x."""
    prior, x = two_gaussians(), torch.tensor([[0.3, 0.4]], dtype=f64)
    n = torch.tensor([[0.7, -0.2]], dtype=f64)
    x0 = held(DSD(form="x0", t_min=0.02), prior, x, 199, 200, n)[0]
    unit = [held(DSD(form="unit", rho=rho), prior, x, 199, 200, n)[0] for rho in (0.1, 0.03)]
    near, nearer = ((g - x0).norm() for g in unit)
    assert nearer < 0.4 * near < 0.4 * x0.norm()


def test_gain_scales_and_shift_moves_the_level_of_n_alone():
    prior, x = two_gaussians(), torch.tensor([[0.3, 0.4]], dtype=f64)
    whole, half = (held(DSD(form="unit", gain=gain), prior, x, 3, 8)[0] for gain in (1.0, 0.5))
    torch.testing.assert_close(half, whole / 2)
    near = DSD(form="unit", shift=0.1)
    state = near.begin(prior, prior.condition("a"), prior.noise([0], f64), 8)
    t = near.t_at(3, 8, prior.schedule)
    assert near.noise_at(state, 3, None)[0].tolist() == [t + math.floor(0.1 * (t - 20))]
    n = torch.tensor([[0.7, -0.2]], dtype=f64)
    torch.testing.assert_close(
        held(near, prior, x, 3, 8, n)[0], held(DSD(form="unit"), prior, x, 3, 8, n)[0]
    )


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
    last = torch.full((500,), 999)
    t_prime = method.t_prime_at(torch.full((500,), t[25]), last, mixture.schedule, draws)
    assert 650 <= t_prime.min()
    assert 681 <= t_prime.max() <= 682  # 650 + 0.1 (650 - 320), never reached
    top = method.t_prime_at(torch.full((500,), t[0]), last, mixture.schedule, draws)
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
    assert zero.level(1.0) == SDI().t_at(0, 10, zero) == 998
    assert NoiseSchedule.stable_diffusion().level(1.0) == 999


def test_costs_of_the_forms(mixture):
    def step(**settings):
        return DSD(**settings).evaluations(mixture).step

    assert step(form="reference") == 5
    assert step(form="reference", snap=True) == 3
    assert step(form="x0") == 4
    assert step(form="ode") == step(form="unit") == 6
    assert step(form="unit", reference_cfg=1.0) == 5
    assert step(form="unit", reference_cfg=1.0, snap=True) == 3


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SDS(cfg=float("nan")), "finite"),
        (lambda: DSD(cfg=float("inf")), "finite"),
        (lambda: DSDStar(cfg="high"), "number"),
        (lambda: SDS(t_min=0.5, t_max=0.5), "t_min < t_max"),
        (lambda: SDS(t_min=-0.1), "0 <= t_min"),
        (lambda: DSD(t_min=0.99), "t_min < t_max"),
        (lambda: DSD(form="odd"), "ode, reference, unit, x0"),
        (lambda: DSD(shift=-0.1), "shift"),
        (lambda: DSD(spacing=0), "spacing must be an int of at least 1"),
        (lambda: DSD(spacing=True), "spacing must be an int of at least 1"),
        (lambda: DSD(anneal="cosine"), "sqrt, linear"),
        (lambda: DSD(noise="fixed"), "ode, random"),
        (lambda: DSD(reference_cfg=float("nan")), "finite"),
        (lambda: DSD(form="unit", rho=0.0), r"rho .* in \(0, 1\), got 0.0"),
        (lambda: DSD(form="unit", rho=1), r"in \(0, 1\)"),
        (lambda: DSD(form="unit", rho=float("nan")), r"in \(0, 1\)"),
        (lambda: DSD(form="unit", rho=True), r"in \(0, 1\)"),
        (lambda: DSD(gain=0.5), 'gain goes with form="unit" or "x0"; "ode" has none, got 0.5'),
        (lambda: DSD(form="reference", gain=2.0), '"reference" has none'),
        (lambda: DSD(form="unit", gain=0.0), "gain must be positive"),
        (lambda: ASD(rho=1.5), r"in \(0, 1\)"),
        (lambda: VSD(entropy=1.5), "entropy is a fraction"),
        (lambda: VSD(entropy=-0.1), "entropy is a fraction"),
        (lambda: RSD(repulsion=-1.0), "repulsion must be finite and not negative"),
        (lambda: SDS(repulsion=float("nan")), "repulsion must be finite"),
        (lambda: RFDS(rounds=-1), "rounds must be an int of at least 0"),
        (lambda: RFDS(weight="none"), "flow, sigma2, ratio"),
        (lambda: PDS(stride=0), "stride must be an int of at least 1"),
        (lambda: PDS(beta="own"), "step, jump"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
