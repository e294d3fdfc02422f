import math

import pytest
import torch

from dsd_lab import DSD, SDS, DSDStar, GaussianMixture, ImageSet, ddim, distill
from dsd_lab.draws import Draws
from dsd_lab.methods import METHODS

f64 = torch.float64


@pytest.fixture
def mixture():
    return GaussianMixture(
        {"left": [[-1.0, 0.2], [-0.6, -0.8]], "right": [[1.0, 0.5], [0.4, 1.0]]}, width=0.15
    )


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


def test_sds_draws_its_timesteps_from_its_range():
    draws = Draws(range(200), (1,))
    t = torch.cat([draws.timesteps(20, 980) for _ in range(50)])
    assert t.min() >= 20
    assert t.max() <= 980
    assert abs(t.double().mean() - 500) < 10  # standard error 2.8
    assert {20, 980} <= set(
        torch.cat([draws.timesteps(20, 980) for _ in range(50)]).tolist()
    ) | set(t.tolist())


# ---- DSD -----------------------------------------------------------------------------------------


class ByHand:
    """One Gaussian N(y, h^2) in one dimension: every number of a DSD step with plain Python floats."""

    y, h = 2.0, 0.5

    def __init__(self):
        beta = [
            (math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * i / 999) ** 2
            for i in range(1000)
        ]
        self.acp, product = [], 1.0
        for b in beta:
            product *= 1 - b
            self.acp.append(product)

    def a(self, t):
        return math.sqrt(self.acp[t])

    def s(self, t):
        return math.sqrt(1 - self.acp[t])

    def eps(self, x, t, cfg):
        """Guided noise prediction: conditional N(2, 0.5^2), unconditional an even mixture with
        N(-1, 0.5^2).
        """

        def of(means):
            v = self.s(t) ** 2 + self.a(t) ** 2 * self.h**2
            p = [math.exp(-((x - self.a(t) * m) ** 2) / (2 * v)) for m in means]
            return (
                self.s(t)
                / v
                * sum(q / sum(p) * (x - self.a(t) * m) for q, m in zip(p, means, strict=True))
            )

        e_c, e_u = of([2.0]), of([2.0, -1.0])
        return e_u + cfg * (e_c - e_u)

    def move(self, x, t, to, cfg):
        e = self.eps(x, t, cfg)
        return self.a(to) * (x - self.s(t) * e) / self.a(t) + self.s(to) * e


@pytest.mark.parametrize("form", ["ode", "reference", "x0"])
def test_one_dsd_step_by_hand(form, fixed_draws):
    prior = GaussianMixture({"a": [[2.0]], "b": [[-1.0]]}, width=0.5)
    hand, cfg, e_star, x, u = ByHand(), 3.0, 0.7, 0.1, 0.4
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
    g, at = method.gradient(
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
    t_prime = method.t_prime(25, 100, mixture.schedule, draws, torch.zeros(500, 2))
    assert 650 <= t_prime.min()
    assert 681 <= t_prime.max() <= 682  # 650 + 0.1 (650 - 320), never reached
    top = method.t_prime(0, 100, mixture.schedule, draws, torch.zeros(500, 2))
    assert top.max() <= 998  # the range is clamped before the random factor


def test_the_switches_for_ablations(mixture, fixed_draws):
    method = DSD(form="reference", anneal="linear")
    assert [method.t_at(i, 4, mixture.schedule) for i in range(4)] == [980, 815, 650, 485]
    cond, e_star = mixture.condition("left"), mixture.noise([0, 1], f64)
    n, u = mixture.noise([8, 9], f64), torch.tensor([0.2, 0.7], dtype=f64)
    method, x = DSD(form="reference", noise="random", shift=0.0), 0 * e_star + 0.3
    state = method.begin(mixture, cond, e_star, 8)
    g, t = method.gradient(state, x, 2, fixed_draws(uniform=u, normal=n))
    s = mixture.schedule
    e_g, e_c = (mixture.predict_noise(s.add_noise(x, t, n), t, cond, cfg) for cfg in (7.5, 1.0))
    torch.testing.assert_close(g, s.sigma[650] ** 2 * (e_g - e_c))


def test_snap_takes_the_kept_prediction(mixture, fixed_draws):
    cond, e_star = mixture.condition("left"), mixture.noise([0, 1], f64)
    method = DSD(form="reference", snap=True)
    assert len(method.nodes(mixture)) >= 34  # every 20 from 999 down to t_min
    state = method.begin(mixture, cond, e_star, 8)
    t_prime, n = state.noise(method, 2, fixed_draws(uniform=torch.tensor([0.0, 0.9], dtype=f64)))
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
    """With the path kept at every timestep the ODE form at step size 1 is DDIM on its own levels."""
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


# ---- all of them ---------------------------------------------------------------------------------

VARIANTS = [
    DSD(noise="random"),
    DSD(form="reference", noise="random", anneal="linear"),
    SDS(),
    SDS(cfg=1.0),
    DSDStar(),
    DSDStar(cfg=1.0),
    *(
        DSD(form=f, cfg=c, snap=s)
        for f in ("ode", "reference", "x0")
        for c in (7.5, 1.0)
        for s in (False, True)
    ),
]


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_evaluations_are_exact(method, mixture):
    steps, seeds = 12, [0, 1, 2]
    before = mixture.evaluations
    run = distill(mixture, "left", method, seeds, steps, start="zeros").finish()
    want = method.evaluations(mixture)
    assert mixture.evaluations - before == len(seeds) * (want.begin + steps * want.step)
    assert torch.isfinite(run.x).all()


def test_costs_of_the_forms(mixture):
    def step(**settings):
        return DSD(**settings).evaluations(mixture).step

    assert step(form="reference") == 5
    assert step(form="reference", snap=True) == 3
    assert step(form="x0") == 4
    assert step(form="ode") == 6


@pytest.mark.parametrize("name", METHODS)
def test_usable_without_arguments(name, mixture):
    method = METHODS[name]()
    assert method.cfg == 7.5
    assert str(method) == method.name
    assert distill(mixture, "left", method, [0], 3).finish().finished


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
        (lambda: DSD(spacing=0), "spacing"),
        (lambda: DSD(anneal="cosine"), "sqrt, linear"),
        (lambda: DSD(noise="fixed"), "ode, random"),
        (lambda: DSD(reference_cfg=float("nan")), "finite"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
