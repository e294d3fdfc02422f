import math
from dataclasses import replace

import pytest
import torch
from helpers import RING, ByHand, f64

from dsd_lab import (
    ASD,
    CFD,
    CSD,
    DDS,
    DSD,
    FSD,
    ISM,
    NFSD,
    PDS,
    RFDS,
    RSD,
    SDI,
    SDS,
    VSD,
    ConsistentODE,
    GaussianMixture,
    ImageSet,
    ddim,
    distill,
)
from dsd_lab.methods import repel
from dsd_lab.priors import ViewSet
from dsd_lab.worlds.toybox.world import resized

WHOLE = dict(t_min=(0.02, 0.02), t_max=(0.98, 0.98))  # a range that is not annealed


@pytest.fixture
def line():
    return ByHand().prior()


def one_gradient(method, prior, cond, x, draws, step=0, steps=10, e_star=None):
    cond = prior.condition(cond) if isinstance(cond, str) else cond
    state = method.begin(prior, cond, torch.ones_like(x) if e_star is None else e_star, steps)
    return method.gradient(state, x, step, draws)[:2]


@pytest.fixture
def same(mixture, fixed_draws):
    """The gradient of a method on the mixture, always at the same x, t and noise."""
    g = torch.Generator().manual_seed(3)
    x, n = torch.randn(3, 2, generator=g, dtype=f64), torch.randn(3, 2, generator=g, dtype=f64)
    t = torch.tensor([100, 400, 700])

    def gradient(method, x=x, prompt="left", **settings):
        draws = fixed_draws(normal=n, t=t, uniform=torch.tensor([0.1, 0.6, 0.9], dtype=f64))
        return one_gradient(method, mixture, prompt, x, draws, **settings)[0]

    gradient.x, gradient.n, gradient.t = x, n, t
    return gradient


# ---- ASD and CSD ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 3.0, 7.5])
def test_asd_without_shift_is_csd(same, cfg):
    asd, csd = same(ASD(cfg=cfg, shift=0.0, **WHOLE)), same(CSD(cfg=cfg))
    torch.testing.assert_close(asd, (cfg - 1) / cfg * csd, rtol=1e-10, atol=1e-12)
    assert csd.norm() > 1e-3


def test_one_csd_step_by_hand(line, fixed_draws):
    """A negative prompt's prediction stands in e_u's place."""
    hand, x, n, t, cfg = ByHand(), 0.1, 0.8, 600, 3.0
    x_t = hand.a(t) * x + hand.s(t) * n
    draws = fixed_draws(normal=torch.tensor([[n]], dtype=f64), t=torch.tensor([t]))
    for negative, base in ((None, [2.0, -1.0]), ("b", [-1.0])):
        want = hand.s(t) ** 2 * cfg * (hand.eps_of([2.0], x_t, t) - hand.eps_of(base, x_t, t))
        cond = line.condition("a", negative)
        g = one_gradient(CSD(cfg=cfg), line, cond, torch.tensor([[x]], dtype=f64), draws)[0]
        assert g.item() == pytest.approx(want, rel=1e-9)


def test_asd_is_the_reference_form_of_dsd_with_other_noise(mixture, fixed_draws):
    dsd, steps, step = DSD(form="reference"), 8, 2
    t = dsd.t_at(step, steps, mixture.schedule)
    g = torch.Generator().manual_seed(0)
    x, n = torch.randn(2, 2, generator=g, dtype=f64), torch.randn(2, 2, generator=g, dtype=f64)
    draws = fixed_draws(
        uniform=torch.tensor([0.3, 0.95], dtype=f64), normal=n, t=torch.tensor([t, t])
    )
    state = dsd.begin(mixture, mixture.condition("left"), n, steps)
    t_prime = dsd.t_prime_at(torch.tensor([t, t]), None, mixture.schedule, draws)
    # in place of the path's prediction
    state = replace(state, ahead={"first": torch.tensor(step), "t": t_prime[None], "n": n[None]})
    asd = ASD(t_min=(0.32, 0.32), t_max=(0.98, 0.98))
    torch.testing.assert_close(
        one_gradient(asd, mixture, "left", x, draws, step, steps)[0],
        dsd.gradient(state, x, step, draws)[0],
        rtol=1e-12,
        atol=1e-12,
    )


def test_one_asd_step_by_hand(line, fixed_draws):
    hand, x, n, cfg = ByHand(), 0.1, 0.8, 3.0
    # step 5 of 10: the lower end is at 1000 (0.5 - 0.48 / 2) = 260, so t' = 600 + floor(0.9 * 0.1
    # (600 - 260)) = 630
    t, t_prime = 600, 630
    draws = fixed_draws(
        uniform=torch.tensor([0.9], dtype=f64),
        normal=torch.tensor([[n]], dtype=f64),
        t=torch.tensor([t]),
    )
    g, at = one_gradient(ASD(cfg=cfg), line, "a", torch.tensor([[x]], dtype=f64), draws, step=5)
    want = hand.s(t) ** 2 * (
        hand.eps(hand.a(t) * x + hand.s(t) * n, t, cfg)
        - hand.eps(hand.a(t_prime) * x + hand.s(t_prime) * n, t_prime, 1.0)
    )
    assert at.tolist() == [t]
    assert g.item() == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(
    "method, step, ends",
    [(ASD(), 0, (500, 980)), (ASD(), 5, (260, 740)), (ISM(), 0, (20, 980)), (VSD(), 5, (20, 740))],
)
def test_the_range_of_t_is_annealed(mixture, method, step, ends):
    assert method.range_at(step, 10, mixture.schedule) == ends


# ---- SDI -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 7.5])
@pytest.mark.parametrize("kind", ["mixture", "pictures"])
def test_sdi_with_the_last_prediction_assigned_is_ddim(kind, cfg, mixture, small_world):
    prior, prompt = (mixture, "left") if kind == "mixture" else (ImageSet(small_world), "cold")
    method = SDI(cfg=cfg, inversion="cached")
    run = distill(prior, prompt, method, [0, 1, 2], 40, dtype=f64).finish()
    levels = [method.t_at(i, 40, prior.schedule) for i in range(40)]
    assert levels[0] == 999
    final = ddim(prior, run.e_star, prior.condition(prompt), cfg=cfg, levels=levels).final
    assert (run.x - final).norm() <= 1e-9 * final.norm()
    optimised = distill(prior, prompt, method, [0, 1, 2], 40, dtype=f64, optimizer="adam").finish()
    assert (optimised.x - final).norm() > 1e-3 * final.norm()


def test_one_sdi_step_by_hand(line, fixed_draws):
    hand, x, cfg = ByHand(), 0.1, 3.0
    # step 3 of 4: t = 1000 (1 - 0.8 * 3 / 4) = 400; tau = floor(0.5 * 1000 / 30) = 16; 4 steps of
    # 104 from 0 to 416
    levels = [0, 104, 208, 312, 416]
    z = x
    for low, high in zip(levels, levels[1:], strict=False):
        z = hand.move(z, low, high, -7.5)
    k = (z - hand.a(416) * x) / hand.s(416)
    want = hand.s(400) / hand.a(400) * (hand.eps(hand.a(400) * x + hand.s(400) * k, 400, cfg) - k)
    draws = fixed_draws(uniform=torch.tensor([0.5], dtype=f64))
    g, at = one_gradient(
        SDI(cfg=cfg), line, "a", torch.tensor([[x]], dtype=f64), draws, step=3, steps=4
    )
    assert at.tolist() == [400]
    assert g.item() == pytest.approx(want, rel=1e-8)
    z = x
    for low, high in zip([100, 179, 258, 337], [179, 258, 337, 416], strict=True):  # from t_first
        z = hand.move(z, low, high, -7.5)
    late = (z - hand.a(416) * x) / hand.s(416)
    want = (
        hand.s(400)
        / hand.a(400)
        * (hand.eps(hand.a(400) * x + hand.s(400) * late, 400, cfg) - late)
    )
    g = one_gradient(
        SDI(cfg=cfg, t_first=0.1), line, "a", torch.tensor([[x]], dtype=f64), draws, step=3, steps=4
    )[0]
    assert g.item() == pytest.approx(want, rel=1e-8)
    noisy = fixed_draws(
        uniform=torch.tensor([0.5], dtype=f64), normal=torch.tensor([[2.0]], dtype=f64)
    )
    k += 0.3 * 2
    want = hand.s(400) / hand.a(400) * (hand.eps(hand.a(400) * x + hand.s(400) * k, 400, cfg) - k)
    g = one_gradient(
        SDI(cfg=cfg, extra_noise=0.3),
        line,
        "a",
        torch.tensor([[x]], dtype=f64),
        noisy,
        step=3,
        steps=4,
    )[0]
    assert g.item() == pytest.approx(want, rel=1e-8)


# ---- ConsistentODE and ISM -----------------------------------------------------------------------


def test_one_consistent_step_by_hand(line, fixed_draws):
    hand, x, e_star, cfg = ByHand(), 0.1, 0.7, 3.0
    s = 400  # step 1 of 4: 1000 (0.7 - 0.6 * sqrt(1/4))
    t = s + 130
    x_t = hand.a(t) * x + hand.s(t) * e_star
    want = hand.eps(x_t, t, cfg) - hand.eps(hand.move(x_t, t, s, cfg), s, cfg)
    for sign, factor in (("code", 1), ("abstract", -1)):
        g, at = one_gradient(
            ConsistentODE(cfg=cfg, sign=sign),
            line,
            "a",
            torch.tensor([[x]], dtype=f64),
            fixed_draws(t=torch.tensor([130])),
            step=1,
            steps=4,
            e_star=torch.tensor([[e_star]], dtype=f64),
        )
        assert at.tolist() == [t]
        assert g.item() == pytest.approx(factor * want, rel=1e-9)


def test_one_ism_step_by_hand(line, fixed_draws):
    hand, x, cfg = ByHand(), 0.1, 3.0
    z = x  # without a prompt (cfg 0) in jumps of 200 to s = 620 - 50, then on to 620
    for low, high in ((0, 200), (200, 400), (400, 570)):
        z = hand.move(z, low, high, 0.0)
    want = (
        0.1
        * hand.s(620)
        / hand.a(620)
        * (hand.eps(hand.move(z, 570, 620, 0.0), 620, cfg) - hand.eps(z, 570, 0.0))
    )
    g, at = one_gradient(
        ISM(cfg=cfg), line, "a", torch.tensor([[x]], dtype=f64), fixed_draws(t=torch.tensor([620]))
    )
    assert at.tolist() == [620]
    assert g.item() == pytest.approx(want, rel=1e-8)


# ---- FSD and CFD ---------------------------------------------------------------------------------


def test_fsd_is_sds_with_its_starting_noise(same, mixture):
    t = FSD().t_at(4, 10, mixture.schedule)
    assert t == 596  # 1000 (0.98 - 0.96 * 0.4)

    def at_t(method, **settings):
        same.t.fill_(t)
        return same(method, **settings)

    fsd = at_t(FSD(), step=4, e_star=same.n)
    torch.testing.assert_close(fsd, at_t(SDS()), rtol=1e-12, atol=1e-12)
    a, s = mixture.schedule.alpha[t], mixture.schedule.sigma[t]
    torch.testing.assert_close(
        at_t(CFD(), step=4, e_star=same.n) * a * s, fsd, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("cfg", [1.0, 7.5])
@pytest.mark.parametrize("t_max", [0.98, 1.0])
def test_cfd_as_a_sampler_is_ddim(mixture, small_world, cfg, t_max):
    for prior, prompt in ((mixture, "left"), (ImageSet(small_world), "cold")):
        method = CFD(cfg=cfg, weight="ddim", t_min=0.0, t_max=t_max)
        run = distill(prior, prompt, method, [0, 1, 2], 30, dtype=f64).finish()
        levels = [method.t_at(i, 30, prior.schedule) for i in range(30)]
        final = ddim(prior, run.e_star, prior.condition(prompt), cfg=cfg, levels=levels).final
        assert (run.x - final).norm() <= 1e-9 * final.norm()
        if prior is mixture:  # where no two paths end in the very same point
            start = method.start(method.begin(prior, run.cond, run.e_star, 30))
            own = distill(
                prior,
                prompt,
                CFD(cfg=cfg, t_min=0.0, t_max=t_max),
                [0, 1, 2],
                30,
                dtype=f64,
                start=start,
                optimizer="plain",
            ).finish()
            assert (own.x - final).norm() > 1e-3 * final.norm()


def test_cfd_renews_its_noise(mixture, fixed_draws):
    method, cond = CFD(gamma=0.36), mixture.condition("left")
    e_star, fresh = mixture.noise([0], f64), mixture.noise([1], f64)
    state = method.begin(mixture, cond, e_star, 10)
    renewed = method.gradient(state, 0 * e_star, 0, fixed_draws(normal=fresh))[2]
    torch.testing.assert_close(renewed.kept["n"], 0.8 * e_star + 0.6 * fresh)
    assert torch.equal(state.kept["n"], e_star)  # a state is never changed
    state = CFD().begin(mixture, cond, e_star, 10)
    state = CFD().gradient(state, 0 * e_star, 0, fixed_draws())[2]
    assert torch.equal(state.kept["n"], e_star)


# ---- NFSD and the term "degraded" ----------------------------------------------------------------


@pytest.mark.parametrize(
    "t, negative", [(150, None), (150, "b"), (200, "b"), (600, "b"), (600, None)]
)
def test_one_nfsd_step_by_hand(line, fixed_draws, t, negative):
    hand, x, n, cfg = ByHand(), 0.1, 0.8, 3.0
    x_t = hand.a(t) * x + hand.s(t) * n

    e_c, e_u = hand.eps_of([2.0], x_t, t), hand.eps_of([2.0, -1.0], x_t, t)
    # without a negative prompt: all, twice as wide
    e_n = hand.eps_of([-1.0], x_t, t) if negative else hand.eps_of([2.0, -1.0], x_t, t, h=1.0)
    want = hand.s(t) ** 2 * ((e_u if t < 200 else e_u - e_n) + cfg * (e_c - e_u))
    draws = fixed_draws(normal=torch.tensor([[n]], dtype=f64), t=torch.tensor([t]))
    g = one_gradient(
        NFSD(cfg=cfg), line, line.condition("a", negative), torch.tensor([[x]], dtype=f64), draws
    )[0]
    assert g.item() == pytest.approx(want, rel=1e-9)


def test_degraded_pictures_are_blurred(small_world):
    prior = ImageSet(small_world)
    worse = prior.components.degraded.means
    blurred = (worse.reshape(-1, 3, 8, 8) / prior.scale + prior.mean_picture + 1) / 2
    weight = torch.tensor(
        [[math.exp(-((i - j) ** 2) / 18) for j in range(8)] for i in range(8)], dtype=f64
    )
    weight = weight / weight.sum(1, keepdim=True)
    want = torch.einsum(
        "ij,nckl,jk,ml->ncim",
        weight,
        small_world.pixels.double() / 255,
        torch.eye(8, dtype=f64),
        weight,
    )
    torch.testing.assert_close(blurred, want, rtol=1e-12, atol=1e-12)
    x, cond = prior.noise([0, 1], f64), prior.condition("warm")
    both = prior.predict(x, torch.tensor([0, 500]), cond, ("uncond", "degraded"))
    sharp = prior.predict(x, torch.tensor([0, 500]), cond, ("uncond",))["uncond"]
    assert torch.equal(both["uncond"].x0, sharp.x0)
    nearest = torch.cdist(x[:1].flatten(1), prior.schedule.alpha[0] * worse).argmin()
    torch.testing.assert_close(
        both["degraded"].x0[0].flatten(), worse[nearest], rtol=1e-9, atol=1e-9
    )


# ---- DDS -----------------------------------------------------------------------------------------


def test_dds_is_the_difference_of_two_sds_gradients(same, mixture, fixed_draws):
    method, cond, source = DDS(source_prompt="right"), mixture.condition("left"), 0.5 - same.x
    state, draws = (
        method.begin(mixture, cond, same.n, 10, source),
        fixed_draws(None, same.n, same.t),
    )
    g, _, state = method.gradient(state, same.x, 1, draws)
    g = g * mixture.schedule.sigma[same.t][:, None] ** 2
    assert torch.equal(state.kept["source"], source)
    torch.testing.assert_close(
        g, same(SDS()) - same(SDS(), x=source, prompt="right"), rtol=1e-10, atol=1e-10
    )


def test_dds_from_a_picture_to_itself_is_at_rest(small_world):
    prior = ImageSet(small_world)
    start = prior.encode(small_world.images("warm")[:2].double())

    def first_gradient(prompt):
        run = distill(prior, prompt, DDS(source_prompt="warm"), [0, 1], 5, start=start, dtype=f64)
        return run.method.gradient(run.state, run.x, 0, run.draws)[0].flatten(1).norm(dim=1)

    assert bool((first_gradient("warm") < 1e-10).all())
    assert bool((first_gradient("cold") > 1e-3).all())
    with pytest.raises(ValueError, match="did you mean"):
        distill(prior, "warm", DDS(source_prompt="wram"), [0], 5)


def test_dds_keeps_its_source_where_it_was(small_world):
    prior = ImageSet(small_world)
    start = prior.encode(small_world.images("warm")[:1].double())
    run = distill(prior, "cold", DDS(), [0], 2, start=start, dtype=f64).finish()
    assert torch.equal(run.state.kept["source"], start) and not torch.equal(run.x, start)


def test_dds_with_negatives_and_a_prompt_a_seed(small_world):
    prior = ImageSet(small_world)
    start = prior.encode(small_world.images("warm")[:2].double())
    run = distill(
        prior,
        prior.condition(["warm", "cold"], "cold"),
        DDS(source_prompt="warm"),
        [0, 1],
        3,
        start=start,
        dtype=f64,
    )
    g = run.method.gradient(run.state, run.x, 0, run.draws)[0].flatten(1).norm(dim=1)
    assert g[0] < 1e-10
    assert g[1] > 1e-3


# ---- VSD -----------------------------------------------------------------------------------------


def test_vsd_of_one_particle_is_sds(same, fixed_draws):
    for i in range(3):
        draws = fixed_draws(normal=same.n[i : i + 1], t=same.t[i : i + 1])
        prior = GaussianMixture({"left": [[-1.0, 0.2]], "right": [[1.0, 0.5]]}, width=0.15)
        vsd, sds = (
            one_gradient(m, prior, "left", same.x[i : i + 1], draws)[0]
            for m in (VSD(width=0.0, **WHOLE), SDS())
        )
        torch.testing.assert_close(vsd, sds, rtol=1e-9, atol=1e-9)
    assert (same(VSD(width=0.5, **WHOLE)) - same(SDS())).norm() > 1e-3


def test_vsd_with_all_pictures_as_particles_is_at_rest(small_world):
    prior = ImageSet(small_world)
    for prompts in (
        ["warm"] * 12,
        ["cold"] * 8,
        ["warm"] * 12 + ["cold"] * 8,
    ):  # the particles of a prompt are its own
        x = torch.cat([prior.means[prior.members(p)] for p in dict.fromkeys(prompts)]).reshape(
            -1, 3, 8, 8
        )
        run = distill(
            prior,
            prior.condition(prompts),
            VSD(cfg=1.0, width=0.0),
            range(len(x)),
            20,
            start=x,
            dtype=f64,
        )
        assert all(
            run.method.gradient(run.state, run.x, i, run.draws)[0].abs().max() < 1e-10
            for i in range(20)
        )


def test_vsd_network_learns_the_noise(mixture):
    """On renders that stay put, its loss falls clearly below that of knowing nothing, which is that
    of e_phi = 0.
    """
    method, x = VSD(particles="network", lr=3e-3), torch.tensor([[1.0, -1.0]] * 8)
    state = method.begin(mixture, mixture.condition("left"), torch.zeros(8, 2), 10)
    g = torch.Generator().manual_seed(0)

    def draw():
        return torch.randint(200, 800, (8,), generator=g), torch.randn(8, 2, generator=g)

    x.requires_grad_()
    for _ in range(300):
        state.fit(x, *draw())
    assert x.grad is None  # the renders are what it learns, and learn nothing
    loss = []
    for _ in range(20):
        t, n = draw()
        with torch.no_grad():
            loss.append((state.e_phi(mixture.schedule.add_noise(x, t, n), t) - n).square().mean())
    assert torch.stack(loss).mean() < 0.1


# ---- settings ------------------------------------------------------------------------------------


def test_costs(mixture):
    def step(method):
        return method.evaluations(mixture).step

    assert [step(m) for m in (ASD(), CSD(), NFSD(), ConsistentODE(), FSD(), ISM(), VSD())] == [
        3,
        2,
        3,
        4,
        2,
        8,
        2,
    ]
    assert step(SDI()) == 22
    assert 14 < SDI().total_evaluations(mixture, 300) / 300 < 17


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ASD(cfg=float("nan")), "finite"),
        (lambda: ASD(t_min=(0.5, 0.6)), "t_min < t_max"),
        (lambda: ASD(t_max=0.98), "pair"),
        (lambda: ASD(shift=-0.1), "shift is a fraction"),
        (lambda: CSD(t_min=0.9, t_max=0.1), "t_min < t_max"),
        (lambda: SDI(inversion="none"), "invert, cached"),
        (lambda: SDI(inversion_steps=0), "inversion_steps must be an int of at least 1"),
        (lambda: SDI(inversion_cfg=float("inf")), "finite"),
        (lambda: SDI(tau_max=2.0), "tau_max is a fraction"),
        (lambda: SDI(t_first=0.3), "t_first is a fraction in 0..t_min=0.2"),
        (lambda: SDI(extra_noise=-1.0), "extra_noise"),
        (lambda: SDI(t_min=0.5, t_max=0.2), "t_min < t_max"),
        (lambda: ConsistentODE(sign="minus"), "code, abstract"),
        (lambda: ConsistentODE(t_max=0.9), "must not exceed 1"),
        (lambda: ConsistentODE(gap_min=0.3), "gap_max must lie above"),
        (lambda: FSD(t_min=-0.1), "0 <= t_min"),
        (lambda: CFD(weight="sigma"), "ratio, ddim"),
        (lambda: CFD(gamma=1.5), "gamma is a fraction"),
        (lambda: NFSD(small="low"), "small is a fraction"),
        (lambda: ISM(interval=-0.1), "interval is a fraction"),
        (lambda: ISM(jump=0.0), "jump must be above 0"),
        (lambda: DDS(source_prompt=3), "one prompt"),
        (lambda: VSD(particles="many"), "exact, network"),
        (lambda: VSD(width=-1.0), "width"),
        (lambda: VSD(hidden=0), "hidden"),
        (lambda: VSD(lr=0.0), "lr must be positive"),
        (lambda: VSD(t_max=(0.98,)), "pair"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# ---- newer members


def test_rfds_by_hand(line, fixed_draws):
    """n' = e_c(a x + s n, t), and the guided prediction at a x + s n' compared with n'."""
    hand, x, n, t, cfg = ByHand(), 0.1, 0.8, 600, 3.0
    draws = fixed_draws(normal=torch.tensor([[n]], dtype=f64), t=torch.tensor([t]))
    a, s = hand.a(t), hand.s(t)
    weights = {"flow": (a + s) / a, "sigma2": s**2, "ratio": s / a}
    for rounds in (0, 1, 2):
        back = n
        for _ in range(rounds):
            back = hand.eps(a * x + s * back, t, 1.0)
        difference = hand.eps(a * x + s * back, t, cfg) - back
        for weight, w in weights.items():
            method = RFDS(cfg=cfg, rounds=rounds, weight=weight)
            g, _ = one_gradient(method, line, "a", torch.tensor([[x]], dtype=f64), draws)
            assert g.item() == pytest.approx(w * difference, rel=1e-9)


def test_rfds_without_rounds_and_esd_of_entropy_0_are_sds_to_the_bit(mixture):
    runs = [
        distill(mixture, "left", method, [0, 1, 2], 20).finish().x
        for method in (SDS(), RFDS(weight="sigma2"), VSD(**WHOLE, entropy=0.0), RSD(repulsion=0.0))
    ]
    assert all(torch.equal(runs[0], other) for other in runs[1:])


def test_esd_of_entropy_1_is_vsd_to_the_bit_and_between_it_is_between(same):
    zero, half, one = (same(VSD(entropy=e)) for e in (0.0, 0.5, 1.0))
    assert torch.equal(one, same(VSD())) and not torch.equal(zero, one)
    torch.testing.assert_close(half, (zero + one) / 2)


def test_esd_knows_no_camera(toy_world):
    """Views from six cameras are one mixture to it, and six to VSD."""
    prior = ViewSet(resized(toy_world, 16))
    cond = prior.condition("a chair", camera=RING)
    x = prior.noise(range(6), f64)
    x_t, t = prior.schedule.add_noise(x, 500, x.flip(0)), torch.full((6,), 500)
    vsd, esd = (m.begin(prior, cond, x, 10).e_phi(x_t, t, x) for m in (VSD(), VSD(entropy=1.0)))
    mixture = GaussianMixture({"views": x.flatten(1)}, VSD().width, schedule=prior.schedule)
    want = mixture.predict_noise(x_t.flatten(1), t, mixture.condition("views"))
    torch.testing.assert_close(esd.flatten(1), want)
    assert not torch.allclose(vsd, esd)


def test_repulsion_of_three_particles_by_hand():
    x, h = [0.0, 1.0, 3.0], 4.0  # the median of 1, 2, 3, squared, over log 2 is 4 / log 2
    for width, h in ((4.0, 4.0), (None, 4.0 / math.log(2))):
        force = repel(torch.tensor([[v] for v in x], dtype=f64), width)
        for i in range(3):
            others = [j for j in range(3) if j != i]
            k = {j: math.exp(-((x[i] - x[j]) ** 2) / h) for j in others}
            want = sum(k[j] * 2 * (x[i] - x[j]) / h for j in others) / sum(k.values())
            assert force[i].item() == pytest.approx(want, rel=1e-12)


def test_repulsion_parts_what_is_near(fixed_draws):
    """Under x <- x - lr g, with a gradient of nothing but the force: two near points part, and so
    do all three.
    """
    x = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 1.0]], dtype=f64)
    moved = x + 0.01 * repel(x)
    assert torch.pdist(moved).min() > torch.pdist(x).min()
    assert (torch.pdist(moved) > torch.pdist(x)).all()


def test_rsd_is_sds_with_the_force_within_each_prompt(mixture, fixed_draws):
    g = torch.Generator().manual_seed(0)
    x, n = torch.randn(6, 2, generator=g, dtype=f64), torch.randn(6, 2, generator=g, dtype=f64)
    t, prompts = torch.tensor([100, 300, 500, 700, 900, 400]), ["left"] * 3 + ["right"] * 3
    draws, cond = fixed_draws(normal=n, t=t), mixture.condition(prompts)
    state = RSD().begin(mixture, cond, n, 10)
    sds = SDS().descent(state, x, 0, draws)[0]
    force = torch.cat([repel(x[:3]), repel(x[3:])])
    sigma = mixture.schedule.sigma[t][:, None]
    want = sds - 5.0 * sigma**3 * force
    torch.testing.assert_close(RSD(repulsion=5.0).descent(state, x, 0, draws)[0], want)
    fsd = FSD().begin(mixture, cond, n, 10)
    plain, pushed = (FSD(repulsion=r).descent(fsd, x, 0, draws)[0] for r in (0.0, 5.0))
    torch.testing.assert_close(pushed, plain - 5.0 * mixture.schedule.sigma[980] ** 3 * force)


def test_repulsion_needs_three_seeds_of_a_prompt_in_a_batch(mixture):
    with pytest.raises(ValueError, match="at least 3; here 2"):
        distill(mixture, "left", RSD(), [0, 1], 5)
    with pytest.raises(ValueError, match="at least 3; here 1"):
        cond = mixture.condition(["left", "left", "left", "right"])
        distill(mixture, cond, FSD(repulsion=1.0), [0, 1, 2, 3], 5)


def pds_settings(mixture, fixed_draws, **settings):
    g = torch.Generator().manual_seed(0)
    x, n = torch.randn(2, 2, generator=g, dtype=f64), torch.randn(2, 2, generator=g, dtype=f64)
    source, t = torch.randn(2, 2, generator=g, dtype=f64), torch.tensor([300, 700])
    cond, draws = mixture.condition("left"), fixed_draws(normal=n, t=t)
    answers = []
    for method in (PDS(source_prompt="right", **settings), DDS(source_prompt="right")):
        state = method.begin(mixture, cond, n, 10, source=source)
        answers.append(method.gradient(state, x, 0, draws)[0])
    return *answers, x, source, t


@pytest.mark.parametrize("settings", [dict(stride=1), dict(stride=25, beta="jump")])
def test_pds_of_the_jumps_own_beta_is_dds_with_a_weight(settings, mixture, fixed_draws):
    pds, dds, _, _, t = pds_settings(mixture, fixed_draws, **settings)
    acp = mixture.schedule.alphas_cumprod
    p = t - settings["stride"]
    beta = 1 - acp[t] / acp[p]
    weight = (beta / (1 - beta)).sqrt() / (1 - acp[p]).sqrt()
    torch.testing.assert_close(pds, weight[:, None] * dds, rtol=1e-8, atol=1e-8)


def test_pds_by_the_published_betas(mixture, fixed_draws):
    """beta_t is of one step, p two steps away: so x enters by itself too."""
    pds, dds, x, source, t = pds_settings(mixture, fixed_draws)
    acp = mixture.schedule.alphas_cumprod
    beta, p = 1 - acp[t] / acp[t - 1], t - 2
    a, s2, a_p, s2_p = acp[t].sqrt(), 1 - acp[t], acp[p].sqrt(), 1 - acp[p]
    spread = (beta * s2_p / s2).sqrt()
    x0_weight, x_weight = a_p * beta / s2, (1 - beta).sqrt() * s2_p / s2
    # x0hat = x - (s / a) (e - n), x_t = a x + s n: what does not differ between the two drops out
    of_x = (a_p - x0_weight - x_weight * a) / spread
    of_e = x0_weight * (s2.sqrt() / a) / spread
    want = of_x[:, None] * (x - source) + of_e[:, None] * dds
    torch.testing.assert_close(pds, want, rtol=1e-7, atol=1e-7)


def test_asd_at_unit_gain_is_that_of_dsd_with_other_noise(mixture, fixed_draws):
    g = torch.Generator().manual_seed(0)
    x, n = torch.randn(2, 2, generator=g, dtype=f64), torch.randn(2, 2, generator=g, dtype=f64)
    dsd = DSD(form="unit", reference_cfg=1.0, noise="random", rho=0.4)
    t = dsd.t_at(2, 8, mixture.schedule)
    draws = fixed_draws(normal=n, t=torch.tensor([t, t]))
    asd = ASD(t_min=(0.02, 0.02), t_max=(0.98, 0.98), rho=0.4)
    a, b = (one_gradient(method, mixture, "left", x, draws, 2, 8)[0] for method in (asd, dsd))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
