"""Text to 3-D at full size, on tiny pipelines: the published set-up, cameras drawn afresh, light, a
learned background, and what a run does when memory runs out.
"""

import math

import pytest
import torch
from helpers import f64, make_mixture, same_tensors
from pipelines import make_pipe, make_view_pipe

from dsd_lab import ASD, DSD, SDS, Camera, Scene, distill_scene, text_to_3d
from dsd_lab.cameras import CameraRanges, orbit, rays
from dsd_lab.distill import Stage, diverse_score_distillation
from dsd_lab.gradients import through
from dsd_lab.priors import PRESETS, PipelinePrior, ViewPrompts, memory_for
from dsd_lab.priors.memory import pick_memory
from dsd_lab.priors.network import quiet
from dsd_lab.scene import HashField, Lights, NeuralBackground, Shading, render
from dsd_lab.scene.lights import shade

LAPTOP, CARD = PRESETS[-1], PRESETS[0]
SMALL = {"levels": 2, "entries": 64, "coarsest": 2, "finest": 8, "hidden": 4}
ONE = (Stage(8, 8, 1.0, 2, samples=12),)


@pytest.fixture(scope="module")
def words():
    with quiet():
        return ViewPrompts(PipelinePrior(make_view_pipe("sd21"), device="cpu"), perp_neg=True)


def published(**changes):
    """The published set-up, small enough for a test."""
    return {**diverse_score_distillation(), "field": HashField(**SMALL), "stages": ONE} | changes


def begun(prior, **changes):
    settings = published(**changes)
    return distill_scene(prior, "a cat", settings.pop("method"), 0, **settings)


# ---- the set-up


def test_the_published_setup():
    setup = diverse_score_distillation()
    method, cameras = setup["method"], setup["cameras"]
    assert (method.cfg, method.second_cfg, method.lowest, method.t_max) == (7.5, 1.0, 0.32, 0.98)
    assert (cameras.distance, cameras.fov, cameras.elevation) == ((1.5, 2), (40, 70), (-10, 45))
    assert (setup["lr"], setup["steps"], setup["refresh"]) == (0.01, 10_000, 1)
    assert [stage.size for stage in setup["stages"]] == [64, 128, 256, 512]
    # beside a loss that is the sum over a latent of 4 x 64 x 64, in which a scene's terms count as
    # whole squared differences of 2 each, a weight is what it was
    weights = {name: weight for name, weight in setup["regularisers"].items()}
    assert weights["convexity"] * 4 * 64 * 64 * 2**2 == pytest.approx(1.0)
    assert weights["sparsity"].start * 65536 == pytest.approx(0.15)
    assert weights["sparsity"][1:] == (0.0, 0.3)
    assert [s.size for s in diverse_score_distillation(size=96)["stages"]] == [64, 96]
    assert diverse_score_distillation()["field"] is not setup["field"]


@pytest.mark.slow
def test_a_run_of_it_goes_on_from_its_checkpoint_to_the_bit(words, tmp_path, capsys):
    run = begun(words, steps=6)
    assert "memory: preset laptop for cpu" in capsys.readouterr().out
    records = [next(run) for _ in range(3)]
    assert records[0].cameras != records[1].cameras  # drawn anew
    run.save(tmp_path / "run.safetensors")
    again = begun(words, steps=6, field=HashField(**SMALL, seed=9)).resume(
        tmp_path / "run.safetensors"
    )
    assert again.stage.cameras == run.stage.cameras
    run.finish(), again.finish()
    assert same_tensors(run.state_dict(), again.state_dict())
    moved = run.scene.backdrop.last
    assert bool(moved.isfinite().all()) and bool((moved != 0).any())
    scene = Scene.load(run.scene.save(tmp_path / "scene.safetensors"))
    torch.testing.assert_close(scene.images([Camera()], 8), run.scene.images([Camera()], 8))


def test_held_targets_belong_to_the_cameras_they_were_asked_about(words):
    run = begun(words, steps=4, refresh=2, shading=None, method=SDS())
    cameras = [next(run).cameras for _ in range(3)]
    assert cameras[0] == cameras[1] != cameras[2]
    again = begun(words, steps=4, refresh=2, shading=None, method=SDS())
    again.load_state_dict(run.state_dict())
    assert again.stage.state.cond.camera == run.stage.cameras == cameras[2]
    assert same_tensors(run.finish().state_dict(), again.finish().state_dict())


def test_what_a_path_simulated_anew_predicts_is_what_a_kept_one_does(words):
    """Cameras that stay, so that both can run."""
    made = [
        text_to_3d(
            words, "a cat", DSD(form="unit", keep_path=keep), 0, 2, refresh=1, stages=ONE,
            cameras=orbit(2),
        ).field.grid
        for keep in (True, False)
    ]  # fmt: skip
    torch.testing.assert_close(*made, rtol=1e-3, atol=1e-3)


def test_it_forgets_the_blends_of_views_that_are_gone(words):
    run = begun(words, steps=3)
    next(run)
    kept = len(words.inner.embeddings.kept)
    run.finish()
    assert len(words.inner.embeddings.kept) == kept  # the texts of all views, no more


def test_refusals(words):
    with pytest.raises(ValueError, match="keep_path=False"):
        begun(words, method=DSD())
    with pytest.raises(ValueError, match="refresh=1, got 2"):
        begun(words, refresh=2, method=SDS())
    with pytest.raises(ValueError, match="share of the shading is a fraction"):
        begun(words, shading=Shading(share=2))
    with pytest.raises(ValueError, match='unknown memory "9GB"; did you mean "8GB"'):
        begun(words, memory="9GB")
    with pytest.raises(ValueError, match="low <= high"):
        CameraRanges(distance=(2, 1))
    with pytest.raises(ValueError, match="size of a stage"):
        diverse_score_distillation(size=0)
    with pytest.raises(ValueError, match="chunk must be an int of at least 1"):
        Scene().render(Camera(), 4, chunk=0)


def test_a_bank_that_is_fixed_cannot_be_drawn_from(toy_world):
    from dsd_lab.priors import ViewSet

    with pytest.raises(ValueError, match="knows its own cameras alone"):
        distill_scene(ViewSet(toy_world), "a chair", SDS(), 0, 4, cameras=CameraRanges())


# ---- light and what is behind


def test_shading_by_hand():
    colour, normal = torch.full((3, 2, 1), 0.5), torch.zeros(3, 2, 1)
    normal[2] = 1  # towards +z, with a lamp straight before it and one at 60 degrees
    lamps = torch.tensor([[0.0, 0, 3], [math.sqrt(3), 0, 1]])
    lights = Lights(lamps, torch.full((2,), 0.1), torch.tensor([True, False]))
    seen = shade(colour, normal, torch.zeros(2, 1, 3), lights)
    torch.testing.assert_close(seen[:, :, 0], torch.tensor([[0.5, 0.55]] * 3))
    dark = shade(colour, -normal, torch.zeros(2, 1, 3), lights)
    torch.testing.assert_close(dark[:, :, 0], torch.tensor([[0.05, 0.1]] * 3))


def test_lamps_are_drawn_as_often_as_they_say():
    lights = Shading().lights([Camera(90, 0)] * 4000, torch.Generator().manual_seed(0))
    lit = lights.ambient < 1
    assert lit.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert (~lights.coloured)[lit].float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert lights.coloured[~lit].all() and (lights.ambient[lit] == 0.1).all()
    distance = lights.position.norm(dim=1)
    assert 0.8 <= distance.min() < 0.81 and 1.49 < distance.max() < 1.5
    assert lights.position[:, 0].mean() > 0.9  # about the camera, at +x


def test_light_falls_on_a_scene_from_its_side():
    field = Scene().field
    lamps = Lights(torch.tensor([[3.0, 0, 3]]), torch.zeros(1), torch.tensor([False]))
    lit = render(field, [Camera(0, 0)], 16, background=0.0, lights=lamps).rgb[0, 0]
    right, left = lit[4:12, 8:].mean(), lit[4:12, :8].mean()
    assert right > 1.5 * left > 0
    plain = lamps._replace(ambient=torch.ones(1), coloured=torch.tensor([True]))
    torch.testing.assert_close(
        render(field, [Camera()], 8, lights=plain).rgb, render(field, [Camera()], 8).rgb
    )


def test_a_learned_background_is_its_formula_and_is_behind_the_scene():
    backdrop = NeuralBackground(frequencies=2, hidden=4).double()
    with torch.no_grad():
        backdrop.last.normal_(generator=torch.Generator().manual_seed(0))
    d = torch.tensor([[0.6, 0.0, -0.8]], dtype=f64)
    waves = torch.cat([math.pi * d, 2 * math.pi * d], dim=1)
    features = torch.cat([d, waves.sin(), waves.cos()], dim=1)
    hidden = (features @ backdrop.first).relu()
    torch.testing.assert_close(backdrop(d), 1 / (1 + (-hidden @ backdrop.last).exp()))

    scene = Scene(background=backdrop.float())
    with torch.no_grad():
        scene.field.grid[:, 0] = -50  # nothing is there
    cameras = [Camera(10), Camera(100)]
    directions = rays(cameras, 6)[1].reshape(-1, 3)
    wanted = backdrop(directions).reshape(2, 6, 6, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(scene.render(cameras, 6).rgb, wanted)
    scene.render(cameras, 6, grad=True).rgb.sum().backward()
    assert bool((backdrop.first.grad != 0).any())


def test_a_scene_asked_in_chunks_has_the_same_picture_and_gradient():
    field, gradients, pictures = HashField(**SMALL), [], []
    for chunk in (None, 100):
        field.zero_grad()
        seen = render(field, orbit(2), 8, 12, normals=True, chunk=chunk)
        (seen.rgb.square().sum() + seen.normals.square()[:, 0].sum()).backward()
        gradients.append([p.grad.clone() for p in field.parameters()])
        pictures.append(seen.rgb.detach())
    torch.testing.assert_close(*pictures)
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


# ---- memory


def test_a_preset_for_a_device(monkeypatch):
    assert memory_for(torch.device("cpu")) is LAPTOP
    for gigabytes, name in ((39.4, "40GB"), (23.6, "24GB"), (15.7, "16GB"), (7.8, "8GB")):
        monkeypatch.setattr(
            torch.cpu, "mem_get_info", lambda _, g=gigabytes: (0, int(g * 2**30)), raising=False
        )
        assert memory_for(torch.device("cpu")).name == name
    monkeypatch.setattr(torch.cpu, "mem_get_info", lambda _: (0, 2**30))
    assert memory_for(torch.device("cpu")) is LAPTOP
    assert pick_memory("24GB", torch.device("cpu")).name == "24GB"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the network", "the scene"])
def test_where_memory_runs_out_the_run_goes_on_with_the_next_preset(
    where, words, capsys, monkeypatch
):
    """A step that fails once is taken again, from the same random numbers."""
    steady = begun(words, steps=3, memory="laptop").finish()
    run = begun(words, steps=3, memory="8GB")
    next(run)
    network = where == "the network"
    place, name = (words.inner.unet, "forward") if network else (run.scene.field, "with_normals")
    work, failed = getattr(place, name), []

    def once(*args, **kwargs):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return work(*args, **kwargs)

    monkeypatch.setattr(place, name, once)
    capsys.readouterr()
    assert [step.index for step in run] == [2, 3] and failed
    assert capsys.readouterr().out == "out of memory at step 2: on with the preset laptop\n"
    assert run.memory is LAPTOP and run.stage.size == 8
    for lost, kept in zip(run.scene.parameters(), steady.scene.parameters(), strict=True):
        torch.testing.assert_close(lost, kept, rtol=1e-4, atol=1e-5)


def test_after_the_smallest_preset_memory_is_short_for_good(words, monkeypatch):
    run = begun(words, steps=3, memory="laptop")
    before = run.state_dict()

    def never(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(run.scene.field, "forward", never)
    monkeypatch.setattr(run.scene.field, "with_normals", never)
    with pytest.raises(torch.OutOfMemoryError):
        next(run)
    assert same_tensors(run.state_dict(), before)


@pytest.mark.slow
def test_a_preset_bounds_the_pictures_and_the_batch(words):
    run = begun(words, steps=2, memory="laptop", stages=(Stage(96, 8, 1.0, 2, samples=4),))
    assert run.stage.size == 64 and next(run).images.shape == (2, 3, 64, 64)
    sizes = []
    with words.inner.unet.register_forward_hook(lambda _, args, __: sizes.append(len(args[0]))):
        next(run)
    assert max(sizes) == LAPTOP.batch


def test_what_a_prior_does_to_fit():
    from diffusers import AutoencoderTiny

    with quiet():
        prior = PipelinePrior(make_pipe("sd15"), device="cpu")
    pictures = torch.rand(3, *prior.image_shape, generator=torch.Generator().manual_seed(0))
    own, x = prior.vae, prior.encode(pictures)
    prior.economise(LAPTOP)
    assert prior.vae is own and own.use_slicing
    torch.testing.assert_close(prior.encode(pictures), x)
    slopes = []
    for memory in (LAPTOP, CARD):
        prior.economise(memory)
        (slope,) = torch.autograd.grad(prior.encode(seen := pictures.requires_grad_()).sum(), seen)
        slopes.append(slope)
    torch.testing.assert_close(*slopes)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    )  # fmt: skip
    prior.keep_tiny(tiny)
    prior.economise(CARD)
    assert prior.vae is own and not own.use_slicing and prior.max_batch is None
    prior.economise(LAPTOP)
    assert prior.vae is tiny and not tiny.use_tiling
    assert prior.encode(pictures).shape == x.shape and not any(
        p.requires_grad for p in tiny.parameters()
    )
    with pytest.raises(ValueError, match=r"\(4, 2\); this one has \(4, 1\)"):
        prior.keep_tiny(
            AutoencoderTiny(
                encoder_block_out_channels=(8,), decoder_block_out_channels=(8,),
                num_encoder_blocks=(1,), num_decoder_blocks=(1,),
            )
        )  # fmt: skip


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e6])
def test_a_gradient_through_half_precision_neither_vanishes_nor_overflows(factor, again):
    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)

    def squared(values):
        return values.half().square().float()

    (factor * through(squared, x, again=again, scaled=True)).sum().backward()
    torch.testing.assert_close(x.grad, factor * torch.tensor([2.0, -4.0, 6.0]), rtol=1e-3, atol=0)
    if factor != 1:  # what it is for
        plain = x.detach().requires_grad_()
        (factor * squared(plain)).sum().backward()
        assert not bool((plain.grad.isfinite() & (plain.grad != 0)).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_half_precision_are_summed_in_float32(dtype):
    with quiet():
        prior = ViewPrompts(
            PipelinePrior(make_view_pipe("sd15"), device="cpu", dtype=dtype), perp_neg=True
        )
    x, cond = prior.noise([0, 1]), prior.condition("a cat", camera=orbit(2))
    e = prior.predict_guided(x, 500, cond, 7.5)
    assert e.output.dtype == e.eps.dtype == torch.float32 and bool(e.eps.isfinite().all())
    assert not torch.equal(e.output, e.output.to(dtype).float())
    run = begun(prior, steps=2, method=ASD()).finish()
    assert all(bool(p.isfinite().all()) for p in run.scene.parameters())


def test_points_have_no_presets():
    make_mixture().economise(LAPTOP)
