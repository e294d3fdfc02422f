"""The loop on a scene: its gradient, its turns, what is kept, what is written down and what is
refused.
"""

import math
import os
import signal
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from helpers import RING, FixedDraws, f64, same_tensors

from dsd_lab import (
    CFD,
    DDS,
    DSD,
    SDI,
    SDS,
    VSD,
    Camera,
    DSDStar,
    GaussianMixture,
    ImageSet,
    InputView,
    Scene,
    ddim,
    distill_scene,
    image_to_3d,
    text_to_3d,
)
from dsd_lab.cameras import orbit
from dsd_lab.distill import STAGES, Stage, fit_stages
from dsd_lab.distill.settings import FAITHFUL
from dsd_lab.distill.targets import Targets
from dsd_lab.draws import Draws, ViewDraws, run_generator
from dsd_lab.metrics.scenes import judge
from dsd_lab.priors import NovelViewSet, ViewSet
from dsd_lab.scene import GridField, HashField, Occupancy
from dsd_lab.scene.regularisers import Ramp, sparsity
from dsd_lab.tasks import NOVEL_VIEW_DSD
from dsd_lab.worlds.toybox.world import resized

ONE = (Stage(16, 8, 1.0, 2),)
TWO = (Stage(16, 8, 0.5, 2), Stage(32, 12, 0.5, 1))


@pytest.fixture
def prior(toy_world):
    return ViewSet(resized(toy_world, 16))


@pytest.fixture
def large(toy_world):
    return ViewSet(toy_world)


def start(prior, method, steps=10, *, prompt="a chair", seed=0, stages=ONE, **settings):
    return distill_scene(prior, prompt, method, seed, steps, stages=stages, **settings)


# ---- a step


@pytest.mark.parametrize("method", [SDS(), DSD(), DSD(form="reference"), CFD(gamma=0.5)], ids=str)
def test_the_field_gets_the_gradient_through_the_pictures(method, prior):
    """J^T g / V: a mean over the views, a sum over their values; J of encode(render), with the same
    jitter.
    """
    run = start(prior, method, refresh=1, regularisers={})
    generator = run_generator(0)
    views = torch.randperm(6, generator=generator)[:2].sort().values
    cameras = [RING[i] for i in views]
    scene = Scene(GridField(8), Occupancy(threshold=0.5))
    x = prior.encode(scene.render(cameras, 16, 48, grad=True, generator=generator).rgb)
    with torch.no_grad():
        state = method.begin(
            prior, prior.condition("a chair", camera=cameras), prior.noise([0, 0]), 10
        )
        g, t, _ = method.gradient(state, x.detach(), 0, ViewDraws(generator, 2, prior.shape))
    want = torch.autograd.grad(x, scene.field.grid, g)[0] / 2
    step = next(run)
    assert (
        step.cameras == tuple(cameras) and torch.equal(step.t, t) and step.index == run.index == 1
    )
    torch.testing.assert_close(prior.encode(step.images), x.detach())
    torch.testing.assert_close(
        run.scene.field.grid.grad, want, rtol=0, atol=1e-4 * want.abs().max().item()
    )
    moved = (run.scene.field.grid - scene.field.grid).detach()[want != 0]
    torch.testing.assert_close(
        moved, -0.1 * want[want != 0].sign(), rtol=1e-3, atol=0
    )  # Adam's first step


def test_a_regulariser_counts_in_whole_squared_differences(prior):
    """Its weight times 3 * 16 * 16 values times (2 * 0.6)^2, the way of each from black to white,
    squared.
    """
    without, with_it = (
        start(prior, SDS(), refresh=1, regularisers=r) for r in ({}, {"sparsity": 0.1})
    )
    next(without), next(with_it)
    scene = Scene(GridField(8), Occupancy(threshold=0.5))
    generator = run_generator(0)
    views = torch.randperm(6, generator=generator)[:2].sort().values
    term = sparsity(scene.render([RING[i] for i in views], 16, 48, grad=True, generator=generator))
    want = 768 * 1.44 * 0.1 * torch.autograd.grad(term, scene.field.grid)[0]
    got = with_it.scene.field.grid.grad - without.scene.field.grid.grad
    torch.testing.assert_close(got, want, rtol=0, atol=1e-3 * want.abs().max().item())


def test_a_regulariser_is_told_the_progress(prior, monkeypatch):
    seen, ramp = [], {"sparsity": Ramp(0.15, 0.0, 0.3)}
    module = sys.modules["dsd_lab.distill.terms"]
    monkeypatch.setattr(
        module,
        "regularisation",
        lambda rendering, *rest: seen.append(rest) or rendering.opacity.sum(),
    )
    start(prior, SDS(), 4, regularisers=ramp).finish()
    assert seen == [(0.0, ramp), (0.25, ramp), (0.5, ramp), (0.75, ramp)]


def test_a_prior_of_pictures_without_cameras(small_world):
    """It sees all views alike, in its own size."""
    prior = ImageSet(small_world)
    run = distill_scene(prior, "warm", SDS(), 0, 2, stages=ONE, refresh=1)
    assert len(run.stage.cameras) == 24 and run.stage.state.cond.camera is None
    x, seen = run.stage.encode_views(torch.tensor([3, 7]))
    quarters = seen.rgb.detach().reshape(2, 3, 8, 2, 8, 2).mean((3, 5))
    torch.testing.assert_close(x.detach(), prior.encode(quarters))
    assert run.finish().finished


def test_every_view_has_the_seeds_noise(large):
    """At half the size: the mean of each 2 x 2 block, times 2, so that it is N(0, I) again."""
    e_star = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(5))
    small = e_star.reshape(3, 16, 2, 16, 2).sum((2, 4)) / 2
    run = start(large, SDS(), seed=5, stages=TWO)
    assert run.stage.state.e_star.shape == (6, 3, 16, 16)
    torch.testing.assert_close(run.stage.state.e_star, small.expand(6, -1, -1, -1))
    assert small.var().item() == pytest.approx(1, abs=4 * math.sqrt(2 / 768))
    for _ in range(6):
        next(run)
    assert run.stage.number == 1 and run.scene.field.resolution == 12
    assert torch.equal(run.stage.state.e_star, e_star.expand(6, -1, -1, -1))


def test_stages(large):
    run = start(
        large,
        SDS(),
        7,
        stages=(Stage(16, 8, 0.5, 2), Stage(32, 12, 0.25, 1), Stage(32, 12, 0.25, 3)),
        refresh=1,
    )
    seen = [(step.images.shape[-1], len(step.cameras), run.scene.field.resolution) for step in run]
    assert (
        seen == [(16, 2, 8)] * 4 + [(32, 1, 12)] + [(32, 3, 12)] * 2
    )  # up to round(3.5), round(5.25), 7
    with pytest.raises(StopIteration):
        next(run)


# ---- turns, held targets, and what they cost


def asked(method, monkeypatch):
    """(step, cameras) of each time that the method is asked."""
    seen, gradient = [], type(method).gradient

    def noted(self, state, x, step, draws):
        assert len(x) == len(state.cond) == len(state.e_star) == draws.views
        seen.append((step, state.cond.camera))
        return gradient(self, state, x, step, draws)

    monkeypatch.setattr(type(method), "gradient", noted)
    return seen


@pytest.mark.parametrize(
    "steps, refresh, stages, want",
    [
        (10, 1, ONE, list(range(10))),
        (10, 4, ONE, [0, 1, 2]),  # ceil(10 / 4)
        (8, 4, TWO, [0, 1]),  # the second stage begins when it is time to ask anyway
        (10, 4, TWO, [0, 1, 1, 2]),  # and here in between, at step 5
    ],
)
def test_how_often_a_method_is_asked(steps, refresh, stages, want, large, monkeypatch):
    seen = asked(SDS(), monkeypatch)
    run = start(large, SDS(), steps, stages=stages, refresh=refresh).finish()
    assert [step for step, _ in seen] == want
    assert run.stage.state.steps == -(-steps // refresh)


@pytest.mark.parametrize("refresh, turn", [(1, 3), (2, 3)])
def test_views_come_in_turn(refresh, turn, prior, monkeypatch):
    """Six cameras, two at a time (or four of twelve): each once before any comes again."""
    seen, cameras = asked(SDS(), monkeypatch), RING if refresh == 1 else orbit(12)
    if refresh == 2:
        prior = ViewSet(
            replace(prior.world, cameras=cameras, views=prior.world.views.repeat(1, 2, 1, 1, 1))
        )
    start(prior, SDS(), 6 * refresh, refresh=refresh).finish()
    turns = [[c for _, part in seen[i : i + turn] for c in part] for i in (0, turn)]
    assert [sorted(own, key=cameras.index) for own in turns] == [list(cameras)] * 2 and turns[
        0
    ] != turns[1]


def test_a_step_fits_what_is_held(prior, monkeypatch):
    """Targets x - g stay as they are between two asks, and a step looks only at views that have
    one.
    """
    run = start(prior, SDS(), 12, refresh=4)
    step = next(run)
    held, target = run.stage.targets.held.clone(), run.stage.targets.values.clone()
    assert int(held.sum()) == 4 and not target[~held].any() and target[held].flatten(1).any(1).all()
    for _ in range(3):
        assert {RING.index(c) for c in step.cameras} <= set(held.nonzero()[:, 0].tolist())
        step = next(run)
    assert torch.equal(run.stage.targets.values, target) and prior.evaluations == 2 * 4
    next(run)
    assert not torch.equal(run.stage.targets.values, target)


@pytest.mark.parametrize(
    "method, begin, step",
    [
        (SDS(), 0, 2),
        (SDS(cfg=1.0), 0, 1),
        (
            DSD(form="x0", t_min=0.02),
            20,
            4,
        ),  # 10 nodes at t = 999, 899, ..., 99, then e_g at t and at t' on the path
        (DSD(form="reference"), 14, 5),  # 7 nodes above t = 320; the reference is not guided
        (DSD(), 20, 6),
        (SDI(inversion="cached"), 2, 2),
    ],
    ids=str,
)
def test_evaluations(method, begin, step, prior):
    """What a method says that an item costs: for the first part of it every view of the bank, for
    each ask the views asked.
    """
    run = start(prior, method, 9, refresh=1)
    assert run.stage.prior is prior and prior.evaluations == 0  # what takes a moment comes later
    assert run.stage.state and prior.evaluations == 6 * begin
    run.finish()
    assert prior.evaluations == 6 * begin + 9 * 2 * step
    assert prior.evaluations == 6 * method.total_evaluations(prior, 3)  # three whole turns


def test_smaller_stages_count_on_the_prior_that_is_held(large):
    """Two asks of two views and, at the full size, one of one; each guided prediction is two."""
    start(large, SDS(), 4, stages=TWO, refresh=1).finish()
    assert large.evaluations == 2 * (2 * 2) + 2 * (1 * 2)


def test_particles_of_vsd_are_those_of_a_camera(prior):
    """A view alone is its own particle, whatever the others show; two of one camera are pooled."""
    method, x = VSD(width=0.3), 0.05 * prior.noise([3, 4, 5], f64)

    def g(items, cameras):
        cond = prior.condition("a chair", camera=[RING[i] for i in cameras])
        draws = FixedDraws(
            normal=prior.noise([6, 7, 8], f64)[items], t=torch.tensor([500, 600, 700])[items]
        )
        return method.gradient(method.begin(prior, cond, 0 * x[items], 10), x[items], 0, draws)[0]

    apart, pooled = g([0, 1, 2], [0, 1, 2]), g([0, 1, 2], [0, 0, 2])
    for i in range(3):
        torch.testing.assert_close(apart[i], g([i], [i])[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pooled[2], apart[2], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pooled[:2], g([0, 1], [0, 0]), rtol=1e-9, atol=1e-9)
    assert (pooled[1] - g([1], [0])[0]).abs().max() > 1e-3


def test_view_draws():
    """One generator, the first of `Draws`; shapes as for a batch of views."""
    generator, one = run_generator(3), Draws([3], (2, 4))
    draws = ViewDraws(generator, 1, (2, 4))
    assert torch.equal(draws.uniform(), one.uniform()) and torch.equal(draws.normal(), one.normal())
    draws = ViewDraws(generator, 5, (3, 2))
    assert draws.uniform().shape == (5,) and draws.timesteps(7, 7).tolist() == [7] * 5
    draws.uniform(), one.uniform()
    saved = draws.state_dict()
    want, again = draws.normal(), ViewDraws(run_generator(0), 5, (3, 2))
    again.load_state_dict(saved)
    assert want.shape == (5, 3, 2) and torch.equal(again.normal(), want)
    assert not torch.equal(draws.normal(), want)


# ---- what is kept for each view


def begun(method, prior, steps=10):
    return method.begin(
        prior, prior.condition("a chair", camera=RING), prior.noise(range(6), f64), steps
    )


@pytest.mark.parametrize(
    "method", [DSD(form="x0"), DSD(form="x0", t_min=0.02, spacing=60), DSD()], ids=str
)
def test_n_of_some_views_is_their_own_path_again(method, prior):
    state, views = begun(method, prior), torch.tensor([4, 1])
    cond, e_star = prior.condition("a chair", camera=[RING[4], RING[1]]), prior.noise([4, 1], f64)
    for step in (0, 3, 9, 6):  # in any order: nothing is made ahead for views that may not come
        t_prime, n, _ = method.noise_at(state.select(views), step, None)
        last = int(t_prime[0])
        levels = [t for t in method.nodes(prior) if t > last] + [last]
        path = ddim(prior, e_star, cond, cfg=method.cfg, levels=levels)
        assert t_prime.tolist() == [last] * 2
        torch.testing.assert_close(n, path.eps[-1], rtol=0, atol=1e-6)


def test_paths_of_some_views(prior):
    path = begun(DSD(), prior).path
    part = path.select(torch.tensor([5, 0]))
    for name in ("x_t", "eps", "x0"):
        assert torch.equal(getattr(part, name), getattr(path, name)[:, [5, 0]])
    points = part.point(torch.tensor([[950, 400]]))[0]
    assert torch.equal(
        points, torch.stack([path.point(torch.full((6,), t))[i] for i, t in ((5, 950), (0, 400))])
    )
    assert part.t is path.t and part.final.shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    "method, nodes", [(DSD(form="x0", t_min=0.02), 10), (DSD(form="x0"), 7), (SDS(), 0)], ids=str
)
def test_kept_bytes(method, nodes, prior):
    """x_t, eps and x0 of six views' 3 x 16 x 16 float32 values, at the nodes 999, 899, ... above
    t_min alone; and of each view the last t.
    """
    run = start(prior, method)
    last = 6 * 8 if nodes else 0
    assert run.stage.state.nbytes == nodes * 3 * 6 * 768 * 4 + last
    assert not nodes or run.stage.state.path.t.tolist() == list(range(999, 999 - 100 * nodes, -100))


def test_the_second_level_of_the_ode_form_is_that_of_a_views_own_last_target(prior):
    """Not the run's: a view that comes again after some steps has farther to go."""
    run, last = start(prior, DSD(), 6, refresh=1), [999] * 6
    seen = []
    for step in run:
        views = [RING.index(camera) for camera in step.cameras]
        state = run.stage.state
        for view in views:
            last[view] = int(step.t[0])
        seen.append(len(set(last)))
        assert state.kept["last"].tolist() == last
        if not run.finished:
            t_prime, _, _ = DSD().noise_at(state.select(torch.tensor(views)), run.index, None)
            assert t_prime.tolist() == [last[view] for view in views]
    assert max(seen) > 2  # there were views apart


def test_cfd_carries_each_views_noise(prior):
    method, views = CFD(gamma=0.36), torch.tensor([4, 1])
    state = begun(method, prior)
    before, draws = state.kept["n"].clone(), ViewDraws(run_generator(0), 2, prior.shape, f64)
    part = state.select(views)
    assert part.cond.camera == (RING[4], RING[1]) and torch.equal(part.e_star, state.e_star[views])
    _, _, part = method.gradient(part, torch.zeros(2, *prior.shape, dtype=f64), 0, draws)
    merged = state.merge(views, part)
    assert torch.equal(state.kept["n"], before)
    state = merged
    fresh = torch.randn(2, *prior.shape, generator=run_generator(0)).double()
    torch.testing.assert_close(state.kept["n"][views], 0.8 * before[views] + 0.6 * fresh)
    assert torch.equal(state.kept["n"][[0, 2, 3, 5]], before[[0, 2, 3, 5]])


@pytest.mark.parametrize("refresh", [1, 4])
def test_a_run_takes_back_what_its_views_keep(refresh, prior):
    run = start(
        prior,
        CFD(gamma=0.3),
        refresh=refresh,
        stages=(Stage(16, 8, 1.0, 2 if refresh == 1 else 1),),
    )
    step = next(run)
    renewed = (run.stage.state.kept["n"] != run.stage.state.e_star).flatten(1).any(1)
    assert (
        torch.equal(renewed, run.stage.targets.held)
        and int(renewed.sum()) == 2
        and renewed[RING.index(step.cameras[0])]
    )


def test_sdi_keeps_each_views_prediction(prior):
    method, views = SDI(inversion="cached"), torch.tensor([3, 2])
    state = begun(method, prior)
    k, x0 = state.kept["k"].clone(), state.kept["x0"].clone()
    part, x = state.select(views), prior.noise([7, 8], f64)
    _, t, part = method.gradient(part, x, 4, None)
    state = state.merge(views, part)
    cond = prior.condition("a chair", camera=[RING[3], RING[2]])
    want = prior.predict_noise(prior.schedule.add_noise(x, t, k[views]), t, cond, 7.5)
    torch.testing.assert_close(state.kept["k"][views], want)
    assert torch.equal(state.select(views).kept["k"], state.kept["k"][views])
    assert torch.equal(state.kept["k"][[0, 1, 4, 5]], k[[0, 1, 4, 5]]) and torch.equal(
        state.kept["x0"], x0
    )


# ---- kinds of method and prior


@pytest.mark.parametrize("method", [DSDStar(), DDS(source_prompt="a chair")], ids=lambda m: m.name)
def test_methods_for_pictures_are_refused(method, prior):
    with pytest.raises(ValueError, match="is for pictures: a scene cannot"):
        start(prior, method)


def test_a_joint_prior_is_asked_for_all_views_at_once(toy_world):
    """Every eight steps, unless told otherwise; each step then fits as many views as it would of
    single ones.
    """
    joint = ViewSet(toy_world, joint=True)
    run, asked = start(joint, SDS(), 10), []
    for step in run:
        asked.append(joint.evaluations)
        assert bool(run.stage.targets.held.all()) and len(step.cameras) == ONE[0].views
    assert run.settings.refresh == 8
    assert start(ViewSet(toy_world), SDS()).settings.refresh == 4
    assert asked == [2 * len(RING)] * 8 + [4 * len(RING)] * 2
    every = start(joint, SDS(), 2, refresh=1)
    assert next(every).cameras == RING  # one object's views cannot be asked for in part
    assert same_tensors(
        start(joint, DSD(form="x0"), refresh=3).finish().state_dict(),
        start(joint, DSD(form="x0"), refresh=3).finish().state_dict(),
    )


def test_default_stages_fit_the_prior(prior, large):
    """Two lines of the README, with a smaller prior: 32 and 64 pixels become what it has."""
    assert [stage.size for stage in start(prior, SDS(), stages=None).settings.stages] == [16, 16]
    assert [stage.size for stage in start(large, SDS(), stages=None).settings.stages] == [32, 32]
    scene = text_to_3d(prior, "a chair", SDS(), steps=4)
    assert scene.field.resolution == STAGES[-1].resolution
    odd = ViewSet(replace(prior.world, views=prior.world.views[..., :12, :12]))
    assert [odd.fitting_size(size) for size in (64, 12, 11, 5, 4, 1)] == [12, 12, 6, 4, 4, 1]


def test_reconstruction_begins_with_a_ring_unless_the_views_are_joint(novel, view, monkeypatch):
    """The default stages, as the run gets them."""
    from dsd_lab import tasks

    seen = []
    monkeypatch.setattr(
        tasks, "distill_scene", lambda *args, stages, **settings: seen.append(stages)
    )
    monkeypatch.setattr(tasks, "_driven", lambda run, *rest: run)
    for prior in (novel, NovelViewSet(novel.world, joint=True)):
        image_to_3d(prior, view)
    assert [stages[0].ring for stages in seen] == [4, 0]
    assert seen[1] == fit_stages(STAGES, novel)


# ---- twice the same, and on from a checkpoint


def test_a_run_goes_back_to_its_own_checkpoint(large, tmp_path):
    """From the end of its second stage to the middle of its first, and on to the same bits."""
    run = start(large, DSD(form="x0"), 4, stages=TWO, refresh=2)
    next(run)
    file = run.save(tmp_path / "run.safetensors")
    want = run.finish().state_dict()
    assert run.resume(file).stage.number == 0 and run.index == 1
    assert same_tensors(run.finish().state_dict(), want)


def test_another_seed_is_another_run(prior):
    grids = [start(prior, SDS(), 2, seed=seed).finish().scene.field.grid for seed in (0, 1)]
    assert not torch.equal(*grids)


def test_steps_and_checkpoints_are_copies(prior):
    run, other = start(prior, CFD(gamma=0.3)), start(prior, CFD(gamma=0.3))
    step, saved = next(run), run.state_dict()
    step.images.add_(9), step.t.add_(9), [value.zero_() for value in saved.values()]
    next(other)
    assert (
        same_tensors(run.finish().state_dict(), other.finish().state_dict())
        and not step.images.requires_grad
    )


def test_text_to_3d_goes_on_after_an_error(large, tmp_path):
    file, settings = tmp_path / "run.safetensors", dict(seed=3, steps=10, stages=TWO, refresh=3)
    want = text_to_3d(large, "chair", DSD(form="x0"), **settings).state_dict()

    def fail(run):
        if run.index == 8:
            raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="lights"):
        text_to_3d(
            large, "chair", DSD(form="x0"), checkpoint=file, every=3, progress=fail, **settings
        )
    seen = []
    scene = text_to_3d(
        large,
        "chair",
        DSD(form="x0"),
        checkpoint=file,
        progress=lambda run: seen.append(run.index),
        **settings,
    )
    assert seen == [7, 8, 9, 10] and same_tensors(scene.state_dict(), want)
    again = text_to_3d(
        large, "chair", DSD(form="x0"), checkpoint=str(file), progress=seen.append, **settings
    )
    assert len(seen) == 4 and same_tensors(
        again.state_dict(), want
    )  # it is finished: nothing more is done
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_ctrl_c_keeps_the_scene(prior, tmp_path):
    def interrupt(run):
        if run.index == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before, file = signal.getsignal(signal.SIGINT), tmp_path / "run.safetensors"
    settings = dict(seed=0, steps=8, stages=ONE)
    scene = text_to_3d(prior, "a chair", SDS(), checkpoint=file, progress=interrupt, **settings)
    assert signal.getsignal(signal.SIGINT) is before
    assert same_tensors(scene.state_dict(), start(prior, SDS(), 8).resume(file).scene.state_dict())
    whole = text_to_3d(prior, "a chair", SDS(), **settings)
    assert not same_tensors(scene.state_dict(), whole.state_dict())
    assert same_tensors(
        text_to_3d(prior, "a chair", SDS(), checkpoint=file, **settings).state_dict(),
        whole.state_dict(),
    )


@pytest.mark.parametrize(
    "other, message",
    [
        (dict(prompt="a duck"), "another run: prompt 'a chair' there, 'a duck' here$"),
        (dict(seed=1), "seed 0 there, 1 here$"),
        (
            dict(method=DSD(form="x0", cfg=5.0)),
            r"method 'SDS' there, \"DSD\(cfg=5.0, form='x0'\)\" here$",
        ),
        (dict(method=SDS(cfg=1.0)), r"method 'SDS' there, 'SDS\(cfg=1.0\)' here$"),
        (dict(negative="a mug"), "negative '' there, 'a mug' here$"),
        (dict(steps=12, lr=0.2), "steps 10 there, 12 here; lr 0.1 there, 0.2 here$"),
        (dict(refresh=2), "refresh 4 there, 2 here"),
        (dict(stages=(Stage(16, 8, 1.0, 1),)), "stages"),
        (dict(regularisers={"sparsity": Ramp(0.15, 0.0, 0.3)}), r"regularisers \{\} there, .*0.15"),
        (dict(cameras=RING[:5]), "cameras '6 .*' there, '5 .*' here"),
        (dict(cameras=RING[::-1]), "cameras '6 .*' there, '6 .*' here"),
        (dict(prior=32), "shape .3, 16, 16. there, .3, 32, 32. here; scale 0.6 there, 0.3 here$"),
    ],
)
def test_a_checkpoint_of_another_run(other, message, prior, large, tmp_path):
    same_as = dict(prior=prior, method=SDS(), regularisers={}, refresh=4)
    file = start(**same_as).save(tmp_path / "run.safetensors")
    other = other | ({"prior": large} if "prior" in other else {})
    with pytest.raises(ValueError, match=message):
        start(**same_as | other).resume(file)
    assert start(**same_as).resume(file).index == 0


def test_a_checkpoint_of_another_version(prior, tmp_path, monkeypatch):
    file = start(prior, SDS()).save(tmp_path / "run.safetensors")
    monkeypatch.setattr("dsd_lab.checkpoint.VERSION", 9)
    with pytest.raises(ValueError, match=r"no checkpoint of this version \(9\): it says 3"):
        start(prior, SDS()).resume(file)
    scene = start(prior, SDS()).scene.save(tmp_path / "scene.safetensors")
    with pytest.raises(ValueError, match="it says None"):
        text_to_3d(prior, "a chair", SDS(), checkpoint=scene, stages=ONE)


def test_a_checkpoint_that_cannot_be_written_is_refused_at_once(prior, tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*nowhere for the checkpoint"):
        text_to_3d(
            prior, "a chair", SDS(), checkpoint=tmp_path / "nowhere" / "run.safetensors", stages=ONE
        )
    for every in (0, 2.5, True):
        with pytest.raises(ValueError, match="every must be an int of at least 1"):
            text_to_3d(prior, "a chair", SDS(), every=every, stages=ONE)


def test_a_write_that_fails_leaves_the_old_checkpoint(prior, tmp_path, monkeypatch):
    def fail(state, path, about):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    run = start(prior, SDS())
    next(run)
    before = run.save(tmp_path / "run.safetensors").read_bytes()
    next(run)
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            run.save(tmp_path / "run.safetensors")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
    assert start(prior, SDS()).resume(tmp_path / "run.safetensors").index == 1
    assert run.save(tmp_path / "run.safetensors").read_bytes() != before


# ---- what comes out, and what cannot be


@pytest.mark.slow
@pytest.mark.parametrize("prompt, share", [("a mug", 0.3), ("a duck", 0.5)])
def test_a_scene_comes_near_an_object(prompt, share, prior):
    """In two seconds, at 16 pixels and from cameras between those of the run; it begins as a grey
    blob.
    """
    between = orbit(3, start=30.0)
    run = start(
        prior,
        DSD(form="x0", t_min=0.02),
        120,
        prompt=prompt,
        stages=(Stage(16, 16, 1.0, 3),),
        refresh=2,
    )
    before = judge([run.scene], prior.world, prompt, between, 16).distance.value
    scene = run.finish().scene
    assert judge([scene], prior.world, prompt, between, 16).distance.value < share * before
    assert prior.evaluations == 6 * 20 + 60 * 6 * 4


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(steps=0), "steps must be an int of at least 1, got 0"),
        (dict(steps=2.5), "steps must be an int"),
        (dict(steps=True), "steps must be an int"),
        (dict(refresh=0), "refresh must be an int of at least 1"),
        (dict(refresh="4"), "refresh must be an int of at least 1"),
        (dict(lr=0.0), "lr must be positive and finite"),
        (dict(lr=math.nan), "lr must be positive and finite"),
        (dict(lr=math.inf), "lr must be positive and finite"),
        (dict(seed=[0]), "seed must be an int, one object a run"),
        (dict(seed=True), "seed must be an int"),
        (dict(seed=0.5), "seed must be an int"),
        (dict(seed=-1), r"every seed must be an int in 0\.\.2\^63-1"),
        (dict(method="dsd"), "method must be a method object such as dsd_lab.DSD()"),
        (dict(method=DSD), "method must be a method object"),
        (dict(prompt="a chiar"), 'did you mean "a chair"'),
        (dict(negative="a mgu"), 'did you mean "a mug"'),
        (dict(cameras=[Camera(7, 20)]), r"the nearest is Camera\(azimuth=0.0"),
        (dict(stages=(Stage(24, 8, 1.0, 2),)), "a smaller size must divide that, got 24"),
        (dict(stages=()), "stages is empty"),
        (
            dict(stages=(Stage(16, 8, 0.0, 2),)),
            r"share of a stage is a fraction of the steps in \(0, 1\]",
        ),
        (dict(stages=(Stage(16, 8, 1.0, 0),)), "views of a stage must be an int of at least 1"),
        (dict(stages=(Stage(16.0, 8, 1.0, 2),)), "size of a stage must be an int of at least 1"),
        (dict(stages=(Stage(16, 8, 1.0, 2, -1),)), "ring of a stage must be an int of at least 0"),
        (dict(cameras=[]), "cameras is empty"),
        (dict(faithful={"rgb": 1.0}), "there is none"),
        (
            dict(prior=GaussianMixture({"a chair": [[0.0, 1.0]]})),
            r"needs a prior of pictures; gaussian-mixture has .* \(2,\)",
        ),
    ],
)
def test_bad_settings(settings, message, prior):
    with pytest.raises((ValueError, TypeError), match=message):
        start(**dict(prior=prior, method=SDS()) | settings)


def test_a_ring_begins_at_the_picture(small_novel, small_view):
    """Evenly around from its camera, at the same elevation, in cameras of the bank."""
    turned = InputView(small_view.image, small_view.mask, RING[1])
    for view, cameras in ((small_view, (RING[0], RING[2], RING[4])), (turned, RING[1::2])):
        run = look(small_novel, view, stages=(Stage(16, 8, 1.0, 2, ring=3),))
        assert run.stage.cameras == cameras


def test_empty_space_is_looked_at_again_as_the_scene_changes(prior):
    run = start(prior, SDS(), 17, refresh=4)
    for step in run:
        if step.index == 15:
            assert run.scene.occupancy.cells.all()
    assert int(run.scene.occupancy.steps) == 17 and not run.scene.occupancy.cells.all()


def test_a_stage_may_look_from_a_ring_alone(prior):
    run = start(
        prior,
        DSD(form="x0"),
        4,
        stages=(Stage(16, 8, 0.5, 2, ring=2), Stage(16, 8, 0.5, 2)),
        refresh=2,
    )
    assert run.stage.cameras == (RING[0], RING[3])
    assert len(run.stage.targets.values) == len(run.stage.state.cond) == 2
    first = [next(run).cameras for _ in range(2)]
    assert set().union(*first) == {RING[0], RING[3]}
    half = run.state_dict()
    next(run)
    assert run.stage.cameras == RING and len(run.stage.targets.values) == 6
    again = start(prior, DSD(form="x0"), 4, stages=run.settings.stages, refresh=2)
    again.load_state_dict(half)
    assert again.stage.cameras == (RING[0], RING[3]) and same_tensors(
        again.finish().state_dict(), run.finish().state_dict()
    )


def test_regularisers_that_need_normals_get_them(prior):
    runs = [
        start(prior, SDS(), 2, regularisers=r, refresh=refresh).finish()
        for r in ({}, {"orientation": 1.0, "convexity": 1.0})
        for refresh in (1, 2)
    ]
    assert not torch.equal(runs[0].scene.field.grid, runs[2].scene.field.grid)
    assert not torch.equal(runs[1].scene.field.grid, runs[3].scene.field.grid)


def test_a_field_of_ones_own(prior, tmp_path):
    def begun():
        return start(
            prior,
            SDS(),
            4,
            field=HashField(levels=2, entries=64, coarsest=2, finest=4, hidden=4),
            stages=(Stage(16, 8, 0.5, 2), Stage(16, 12, 0.5, 2)),
        )

    run = begun()
    before = run.scene.field.tables.detach().clone()
    for _ in range(3):
        next(run)
    assert not torch.equal(run.scene.field.tables, before)
    again = begun().resume(run.save(tmp_path / "run.safetensors"))
    assert same_tensors(again.finish().state_dict(), run.finish().state_dict())
    with pytest.raises(ValueError, match="field 'HashField' there, 'GridField' here"):
        start(prior, SDS(), 4, stages=run.settings.stages).resume(tmp_path / "run.safetensors")


def test_what_is_no_checkpoint(prior, tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is no checkpoint"):
        start(prior, SDS()).resume(tmp_path / "junk.safetensors")
    with pytest.raises(ValueError, match="is a folder; give a file"):
        text_to_3d(prior, "a chair", SDS(), checkpoint=tmp_path, steps=2, stages=ONE)


# ---- from one picture


def test_a_scene_stops_before_a_value_that_is_not_finite(prior):
    run = start(prior, SDS())
    for _ in range(3):
        next(run)
    good = {name: value.clone() for name, value in run.scene.state_dict().items()}
    run.terms = [Spoiling()]
    with pytest.raises(
        ValueError, match=r"not finite at step 4, t = \[.*left as it was before.*; lower"
    ):
        run.finish()
    assert run.index == 3
    assert all(torch.equal(good[name], value) for name, value in run.scene.state_dict().items())


class Spoiling:
    """A term whose value is finite and whose slope is not."""

    needs_normals = False

    def __call__(self, run, rendering):
        return (rendering.rgb.sum() * 0).sqrt()


@pytest.mark.parametrize("refresh", [1, 3])
@pytest.mark.parametrize("where", ["loss", "step"])
def test_a_step_that_fails_changes_nothing(where, refresh, prior, monkeypatch):
    """Neither scene nor optimiser, targets, generator and what the method keeps: the run goes on as
    if it had never been, to the bit.
    """
    run, other = (
        distill_scene(prior, "a chair", CFD(gamma=0.5), 0, 9, refresh=refresh, stages=ONE)
        for _ in range(2)
    )
    for _ in range(3):
        next(run), next(other)
    before = run.state_dict()
    with monkeypatch.context() as patch:
        if where == "loss":
            patch.setattr(Targets, "loss", lambda *a: a[2].sum() * torch.nan)
        else:
            step = torch.optim.Adam.step

            def spoils(self, *args):
                step(self, *args)
                with torch.no_grad():
                    self.param_groups[0]["params"][0].flatten()[7] = torch.inf

            patch.setattr(torch.optim.Adam, "step", spoils)
        with pytest.raises(ValueError, match="not finite at step 4, .* left as it was before"):
            next(run)
    assert same_tensors(before, run.state_dict())
    assert same_tensors(run.finish().state_dict(), other.finish().state_dict())


@pytest.fixture(scope="module")
def novel(toy_world):
    return NovelViewSet(toy_world)


@pytest.fixture(scope="module")
def small_novel(toy_world):
    return NovelViewSet(resized(toy_world, 16))


@pytest.fixture(scope="module")
def view(toy_world):
    """The second chair from the first camera, 32 x 32."""
    image = toy_world.images(camera_index=0)[1]
    return InputView(image, (image < 0.99).any(0, keepdim=True).float(), RING[0])


@pytest.fixture(scope="module")
def small_view(toy_world):
    image = resized(toy_world, 16).images(camera_index=0)[1]
    return InputView(image, (image < 0.99).any(0, keepdim=True).float(), RING[0])


def look(prior, view, method=SDS(), steps=10, *, seed=0, stages=ONE, **settings):
    return distill_scene(prior, None, method, seed, steps, view=view, stages=stages, **settings)


@pytest.mark.parametrize("weights", [{"rgb": 2.0}, {"mask": 0.5}, {"rgb": 2.0, "mask": 0.5}])
def test_the_scene_is_drawn_to_the_picture(weights, small_novel, small_view):
    """The mean squared differences of 3 x 16 x 16 colours and of 16 x 16 opacities, from the
    picture's camera, each weighed and times 3 * 16 * 16 * (2 * 0.6)^2, as for a regulariser.
    """
    without, with_it = (
        look(small_novel, small_view, refresh=1, regularisers={}, faithful=f) for f in ({}, weights)
    )
    next(without), next(with_it)
    assert torch.equal(without.stage.targets.values, with_it.stage.targets.values)
    generator, scene = run_generator(0), Scene(GridField(8), Occupancy(threshold=0.5))
    views = torch.randperm(6, generator=generator)[:2].sort().values
    scene.render(
        [RING[i] for i in views], 16, 48, generator=generator
    )  # what the method is asked about
    draws = ViewDraws(generator, 2, small_novel.shape)
    draws.timesteps(20, 980), draws.normal()  # and what it draws
    seen = scene.render(RING[0], 16, 48, grad=True, generator=generator)
    colours = sum(((seen.rgb[0, c] - small_view.image[c]) ** 2).sum() for c in range(3)) / 768
    opacity = ((seen.opacity[0, 0] - small_view.mask[0]) ** 2).sum() / 256
    term = weights.get("rgb", 0) * colours + weights.get("mask", 0) * opacity
    want = 768 * 1.44 * torch.autograd.grad(term, scene.field.grid)[0]
    got = with_it.scene.field.grid.grad - without.scene.field.grid.grad
    torch.testing.assert_close(got, want, rtol=0, atol=2e-3 * want.abs().max().item())


def test_the_picture_is_taken_at_each_stages_size(novel, view, monkeypatch):
    asked = []
    monkeypatch.setattr(
        InputView,
        "at_size",
        lambda self, size, real=InputView.at_size: asked.append(size) or real(self, size),
    )
    run = look(novel, view, steps=4, stages=TWO)
    for _ in run:
        pass
    assert asked == [16, 16, 32, 32]


@pytest.mark.slow
def test_the_scene_comes_to_show_a_picture(small_novel, small_view):
    """Even one that no object of the world looks like: the chair with its colours turned round."""
    odd = InputView(
        torch.where(small_view.mask > 0, 1 - small_view.image, 1.0),
        small_view.mask,
        small_view.camera,
    )
    away = {}
    for name, faithful in (
        ("not", {"rgb": 0.0, "mask": 0.0}),
        ("drawn", {"rgb": 5.0, "mask": 0.5}),
    ):
        scene = look(small_novel, odd, steps=60, faithful=faithful).finish().scene
        away[name] = float((scene.images([odd.camera], 16)[0] - odd.image).square().mean().sqrt())
    assert away["drawn"] < 0.5 * away["not"]


def test_what_a_run_from_a_picture_says_of_itself(small_novel, small_view):
    run = look(small_novel, small_view)
    assert run.settings.faithful == FAITHFUL and set(FAITHFUL) == {"rgb", "mask"}
    assert FAITHFUL["rgb"] == pytest.approx(10 * FAITHFUL["mask"])
    assert (
        run.stage.state.cond.view is small_view
        and run.stage.state.cond.camera == RING
        and run.stage.cameras == RING
    )
    assert run.header["picture's camera"] == str(RING[0])
    assert NOVEL_VIEW_DSD == DSD(form="x0", t_min=0.02, cfg=3.0, anneal="linear")
    copy = InputView(small_view.image.clone(), small_view.mask.clone(), small_view.camera)
    assert look(small_novel, copy).header == run.header


@pytest.mark.parametrize("method", [SDS(), NOVEL_VIEW_DSD], ids=str)
def test_image_to_3d_goes_on_after_an_error(method, novel, view, tmp_path):
    file, settings = tmp_path / "run.safetensors", dict(seed=3, steps=10, stages=TWO, refresh=3)
    want = image_to_3d(novel, view, method, **settings).state_dict()

    def fail(run):
        if run.index == 8:
            raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="lights"):
        image_to_3d(novel, view, method, checkpoint=file, every=3, progress=fail, **settings)
    seen = []
    scene = image_to_3d(
        novel,
        view,
        method,
        checkpoint=file,
        progress=lambda run: seen.append(run.index),
        **settings,
    )
    assert seen == [7, 8, 9, 10] and same_tensors(scene.state_dict(), want)
    assert not same_tensors(
        image_to_3d(novel, view, method, **settings | {"seed": 4}).state_dict(), want
    )


def test_image_to_3d_makes_its_view_of_a_tensor(novel, view):
    """At the prior's size and from the camera given; so it is the same run as from the view."""
    settings = dict(steps=2, stages=TWO, refresh=1)
    scene = image_to_3d(novel, view.image, SDS(), image_camera=RING[0], **settings)
    made = InputView(view.image, (view.image < 1 - 2 / 255).any(0, keepdim=True).float(), RING[0])
    assert same_tensors(
        scene.state_dict(), image_to_3d(novel, made, SDS(), **settings).state_dict()
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ("image", "another run: picture 'digest .*' there, 'digest .*' here$"),
        ("mask", "another run: picture 'digest .*' there, 'digest .*' here$"),
        (
            "camera",
            r"another run: picture's camera 'Camera\(azimuth=0.0.*' there, "
            r"'Camera\(azimuth=60.0.*' here$",
        ),
        (
            "faithful",
            r"another run: faithful {'mask': 0.1, 'rgb': 2.0} there, "
            r"{'rgb': 1.0, 'mask': 0.1} here$",
        ),
        ("method", "another run: method 'SDS' there"),
    ],
)
def test_a_checkpoint_of_another_picture(change, message, small_novel, small_view, tmp_path):
    file = look(small_novel, small_view, faithful={"rgb": 2.0, "mask": 0.1}).save(
        tmp_path / "run.safetensors"
    )
    image, mask = small_view.image.clone(), small_view.mask.clone()
    if change == "image":
        image[0, 0, 0] -= 2 / 255
    if change == "mask":
        mask[0, 0, 0] = 1
    other = InputView(image, mask, RING[1] if change == "camera" else RING[0])
    with pytest.raises(ValueError, match=message):
        image_to_3d(
            small_novel,
            other,
            SDS(cfg=2.0) if change == "method" else SDS(),
            steps=10,
            stages=ONE,
            checkpoint=file,
            faithful={"rgb": 1.0 if change == "faithful" else 2.0, "mask": 0.1},
        )
    same_run = look(
        small_novel,
        InputView(image, mask, RING[0])
        if change in ("camera", "faithful", "method")
        else small_view,
        faithful={"rgb": 2.0, "mask": 0.1},
    )
    assert same_run.resume(file).index == 0


@pytest.mark.parametrize(
    "faithful, message",
    [
        ({"rbg": 5.0}, "faithful holds weights of at least 0 for rgb, mask, got rbg: 5.0"),
        ({"rgb": 5.0, "mask": -0.5}, "got mask: -0.5"),
        ({"rgb": math.nan}, "got rgb: nan"),
        ({"rgb": math.inf}, "got rgb: inf"),
    ],
)
def test_bad_faithful(faithful, message, small_novel, small_view):
    with pytest.raises(ValueError, match=message):
        look(small_novel, small_view, faithful=faithful)


def test_a_picture_for_the_wrong_prior(prior, small_novel, small_view):
    with pytest.raises(
        TypeError,
        match="toybox-novel-view is asked by a picture: use image_to_3d, or give view=input_view",
    ):
        distill_scene(small_novel, None, SDS(), 0)
    with pytest.raises(TypeError, match="is asked by a picture"):
        look(small_novel, small_view.image)
    with pytest.raises(TypeError, match="toybox is asked by a prompt: use text_to_3d"):
        distill_scene(prior, "a chair", SDS(), 0, view=small_view)
    with pytest.raises(TypeError, match="toybox is asked by a prompt: use text_to_3d"):
        image_to_3d(prior, small_view)
    with pytest.raises(ValueError, match="the picture is empty"):
        image_to_3d(small_novel, torch.ones(3, 16, 16))
