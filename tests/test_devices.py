"""Every public path on a device that is not the CPU: it runs, what it returns is there, and the
numbers are the CPU's.

A path is a function of a `Kit`, which holds tiny priors on one device. It returns what it made:
float tensors, which must be on the kit's device, reports and numbers. The device is `device.py`'s.
"""

import dataclasses
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path

import pytest
import torch
from device import MOCK
from pipelines import make_family, make_pipe, make_view_pipe
from test_novel_view import make_parts
from torch.nn.attention import SDPBackend, sdpa_kernel

from dsd_lab import (
    CFD,
    DSD,
    NFSD,
    SDI,
    SDS,
    VSD,
    Camera,
    DSDStar,
    GaussianMixture,
    ImageSet,
    NoiseSchedule,
    Scene,
    compare,
    ddim,
    ddim_invert,
    distill,
    distill_images,
    distill_scene,
    diverse_score_distillation,
    image_to_3d,
    input_view,
    metrics,
    text_to_3d,
)
from dsd_lab.cameras import orbit, project
from dsd_lab.distill.scenes import Stage
from dsd_lab.draws import starting_noise
from dsd_lab.methods import VARIANTS
from dsd_lab.minis import NovelView, Recipe, TextToImage, TrainingSet, train
from dsd_lab.minis.exams import exam_of, reconstruction
from dsd_lab.minis.parts import make_autoencoder, seeded
from dsd_lab.priors import (
    PRESETS,
    NovelViewPrior,
    NovelViewSet,
    PipelinePrior,
    ViewPrompts,
    ViewSet,
)
from dsd_lab.priors.zero123 import NovelViewNetwork
from dsd_lab.scene import REFERENCE, HashField, Shading, fit_views
from dsd_lab.studies import Grid, Setting, study, summarise
from dsd_lab.studies.report import write_report
from dsd_lab.viz import live
from dsd_lab.viz import pictures as figures
from dsd_lab.viz import points as plots
from dsd_lab.viz import scenes as views
from dsd_lab.viz.interpolation import Moment, interpolation
from dsd_lab.viz.landscape import Landscape, landscapes
from dsd_lab.worlds import ToyboxWorld, make_toys, render
from dsd_lab.worlds.pictures import PictureWorld, Source

SEEDS, RING = [0, 1, 2], orbit(4)
FILES = tempfile.TemporaryDirectory()  # what paths write
TWO = (Stage(8, 6, 0.5, 2), Stage(16, 8, 0.5, 1))
SHORT = {SDI: {"inversion_steps": 3}, DSD: {"spacing": 250}}  # so that a run takes no time
METHODS = {
    name: variant.make(**SHORT.get(variant.kind, {})) for name, variant in VARIANTS.items()
} | {
    "sdi": SDI(inversion_steps=3, extra_noise=0.3),
    "cfd-gamma": CFD(gamma=0.3),
    "cfd-ddim": CFD(weight="ddim"),
    "dsd-random": DSD(form="reference", noise="random"),
    "vsd-network": VSD(particles="network", hidden=8),
    "vsd-lora": VSD(particles="lora", rank=2),
}


# ---- tiny worlds, priors and networks


@cache
def pictures():
    """20 pictures of 8 x 8 under two labels."""
    pixels = torch.randint(
        0, 256, (20, 3, 8, 8), generator=torch.Generator().manual_seed(7), dtype=torch.uint8
    )
    sources = (Source("made here", "noise", "Apache-2.0"),) * 20
    return PictureWorld(
        "small", ("warm", "cold"), pixels, torch.tensor([0] * 12 + [1] * 8), sources
    )


@cache
def toys():
    """Two chairs, a duck and a mug from a ring of four cameras, 16 x 16."""
    made = make_toys(["chair", "chair", "duck", "mug"], [0, 1, 0, 0])
    views = (render(made, RING, 16).rgb * 255).round().byte()
    prompts = ("a chair", "a duck", "a mug", *made.captions)
    return ToyboxWorld(prompts, made, torch.tensor([0, 0, 1, 2]), torch.arange(4), RING, views)


@cache
def view():
    return input_view(toys().images(camera_index=0)[0], RING[0], 16)


def mixture():
    means = {"left": [[-1.0, 0.0], [-2.0, 1.0]], "right": [[1.0, 0.5]]}
    widths = {"left": [0.1, 0.3], "right": [0.2]}
    return GaussianMixture(means, widths)


class Kit:
    """Tiny priors on one device, each made once."""

    def __init__(self, device):
        self.device = torch.device(device)

    @property
    def folder(self):
        """A new one for each path."""
        return Path(tempfile.mkdtemp(dir=FILES.name))

    @cached_property
    def points(self):
        return mixture().to(self.device)

    @cached_property
    def exact(self):
        return ImageSet(pictures()).to(self.device)

    @cached_property
    def views(self):
        return ViewSet(toys()).to(self.device)

    @cached_property
    def joint(self):
        return ViewSet(toys(), joint=True).to(self.device)

    @cached_property
    def new_views(self):
        return NovelViewSet(toys()).to(self.device)

    def pipeline(self, kind, make=make_pipe):
        return PipelinePrior(make(kind), device=self.device, dtype=torch.float32)

    @cached_property
    def network(self):
        return self.pipeline("sd15")

    @cached_property
    def network_v(self):
        return self.pipeline("sd21")

    @cached_property
    def pixels(self):
        return self.pipeline("pixel")

    @cached_property
    def words(self):
        return ViewPrompts(self.pipeline("sd15", make_view_pipe), perp_neg=True)

    @cached_property
    def zero123(self):
        parts = make_parts()
        network = NovelViewNetwork(parts.unet, parts.image_encoder, parts.projection)
        return NovelViewPrior(
            network, parts.vae, parts.scheduler.config, device=self.device, dtype=torch.float32
        )

    @cached_property
    def scene(self):
        """Two steps of a scene, and its two resolutions."""
        return text_to_3d(self.views, "a chair", SDS(), 0, 4, stages=TWO)


kit = cache(Kit)


def alike(found, expected, device, where, tolerance):
    """Whether two results are of one form, on their devices, and equal but for rounding."""
    if isinstance(expected, torch.Tensor):
        if expected.is_floating_point():
            assert found.device == device, f"{where} is on {found.device}"
        torch.testing.assert_close(
            found.cpu(), expected, rtol=tolerance, atol=tolerance, msg=lambda m: f"{where}: {m}"
        )
    elif dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            parts = (getattr(side, field.name) for side in (found, expected))
            alike(*parts, device, f"{where}.{field.name}", tolerance)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            alike(found[key], expected[key], device, f"{where}[{key!r}]", tolerance)
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected), where
        for k, parts in enumerate(zip(found, expected, strict=True)):
            alike(*parts, device, f"{where}[{k}]", tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True), where
    else:
        assert found == expected, where


# ---- the paths: name -> function of a kit

PATHS = {}


def path(function):
    PATHS[function.__name__.replace("_", " ")] = function
    return function


def picture_run(kit, prior, prompt, method, steps=4):
    """A run of a method in the plane: x, gradient, its state."""
    prior = getattr(kit, prior)
    run = distill(prior, prior.condition(prompt), method, SEEDS, steps)
    rms = [step.gradient_rms for step in run]
    return run.x, rms, prior.decode(run.x) if len(prior.shape) == 3 else None


def scene_run(kit, prior, method, prompt="a chair", **settings):
    """A run of a method on a scene: the grid, the last pictures."""
    prior = getattr(kit, prior)
    settings = {"stages": TWO, "refresh": 2} | settings
    if prior.asked_by == "picture":
        prompt, settings["view"] = None, view()
    run = distill_scene(prior, prompt, method, 0, 4, **settings)
    steps = list(run)
    return [step.images for step in steps], dict(run.scene.field.named_parameters())


for name, method in METHODS.items():
    runs = partial(picture_run, method=method)
    PATHS[f"network, {name}"] = partial(runs, prior="network", prompt="a red cat", steps=2)
    if name != "vsd-lora":
        PATHS[f"points, {name}"] = partial(runs, prior="points", prompt="left")
        PATHS[f"pictures, {name}"] = partial(runs, prior="exact", prompt="warm")
        if method.for_scenes:
            PATHS[f"scene, {name}"] = partial(scene_run, prior="views", method=method)
for prior in ("joint", "new_views"):
    PATHS[f"scene, {prior}"] = partial(scene_run, prior=prior, method=DSD(form="x0"))
ONE = {"stages": (Stage(16, 6, 1.0, 2),), "cameras": RING[:2]}
PATHS["scene, not held"] = partial(scene_run, prior="views", method=SDS(), refresh=1)
PATHS["scene, a ring"] = partial(
    scene_run, prior="views", method=DSD(), stages=(Stage(16, 6, 1.0, 2, ring=2),)
)
PATHS["scene, all regularisers"] = partial(
    scene_run, prior="views", method=SDS(), regularisers=REFERENCE
)
PATHS["scene, words"] = partial(scene_run, prior="words", method=SDS(), prompt="a red cat", **ONE)
PATHS["scene, lora"] = partial(
    scene_run, prior="network", method=VSD(particles="lora", rank=2), prompt="a red cat", **ONE
)
PATHS["scene, zero123"] = partial(scene_run, prior="zero123", method=DSD(form="x0"), **ONE)


def a_familys_run(kit, name, method):
    """A run on a pipeline of a family, its path, and its pictures there and back. FLUX.1 is left
    out: its positions are in float64 in diffusers, save on devices that it knows to have none.
    """
    prior = PipelinePrior(make_family(name), name, kit.device, torch.float32)
    cond = prior.condition("a red cat")
    prior.prepare(cond)
    run = distill(prior, cond, method, SEEDS[:2], 2).finish()
    there = ddim(prior, prior.noise([0]), cond, 2, method.cfg)
    return run.x, there.x_t, there.images, prior.encode(there.images)


for name, method in (
    ("sdxl", SDS(cfg=2.0)),
    ("sd3", DSD(cfg=2.0, spacing=250)),
    ("sana", SDS(cfg=2.0)),
):
    PATHS[f"family, {name}"] = partial(a_familys_run, name=name, method=method)


@path
def an_exact_flow(kit):
    prior = ImageSet(pictures(), schedule=NoiseSchedule.flow(3.0)).to(kit.device)
    cond = prior.condition("warm")
    run = distill(prior, cond, DSD(spacing=250), SEEDS, 3).finish()
    return run.x, ddim(prior, prior.noise(SEEDS), cond, 3).images


@path
def several_prompts_and_a_negative(kit):
    prior = kit.exact
    cond = prior.condition(["warm", "cold", "warm"], negative="cold")
    return [distill(prior, cond, method, SEEDS, 3).finish().x for method in (SDS(), VSD(), NFSD())]


@path
def distill_images_held(kit):
    start = torch.rand(3, *kit.exact.shape)
    run = distill_images(kit.exact, "warm", SDS(), SEEDS, 4, refresh=2)
    given = distill(kit.exact, run.cond, SDS(), SEEDS, 2, start=start * 0)
    return run.images, given.finish().x


@path
def paths_and_back(kit):
    """DDIM, its kept path read between its nodes, and inversion."""
    made = []
    for prior, prompt in ((kit.exact, "warm"), (kit.network_v, "a red cat"), (kit.pixels, "cat")):
        cond = prior.condition(prompt)
        there = ddim(prior, prior.noise(SEEDS), cond, 4)
        back = ddim_invert(prior, there.final, cond, 4)
        part = there.select(torch.tensor([2, 0]))
        between = there.point(torch.tensor([[700, 300, 10]]))
        made += [there.x_t, there.eps, there.images, back.x_t, part.x0, between]
    return made


@path
def one_view_of_a_toy(kit):
    cond = kit.views.condition("a chair", camera=RING[1])
    return ddim(kit.views, kit.views.noise(SEEDS), cond, 3).images


@path
def joint_views(kit):
    cond = kit.joint.condition("a chair", camera=RING)
    return ddim(kit.joint, kit.joint.noise([0] * 4), cond, 3).images


@path
def new_views_of_a_picture(kit):
    made = []
    for prior in (kit.new_views, kit.zero123):
        cond = prior.condition(view(), camera=RING[1:3])
        made.append(ddim(prior, prior.noise([0, 1]), cond, 3).images)
    answers = kit.new_views.answers(view())
    return made, answers.tolist(), kit.new_views.log_posterior(view()).tolist()


@path
def encode_and_decode(kit):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(kit.device)
    made = []
    for prior in (kit.exact, kit.views, kit.network, kit.pixels, kit.words, kit.zero123):
        side = getattr(prior, "image_shape", prior.shape)[-1]
        some = images[..., :side, :side].clone().requires_grad_()
        x = prior.encode(some)
        x.square().sum().backward()
        made += [x.detach(), some.grad, prior.decode(x.detach())]
    return made


@path
def densities_and_members(kit):
    x = starting_noise(SEEDS, (2,), device=kit.device)
    prior = kit.points
    cond = prior.condition("left")
    return (
        [prior.log_density(x, t, cond) for t in (10, 500)],
        prior.log_density(x, torch.tensor([3, 500, 999])),
        prior.members("left").tolist(),
        kit.exact.members("cold").tolist(),
        kit.views.members("a duck").tolist(),
    )


@path
def a_comparison(kit):
    methods = {"SDS": SDS(), "DSD*": DSDStar(), "VSD": VSD()}
    results = compare(kit.exact, ["warm", "cold"], methods, SEEDS, 3, ddim_steps=4)
    return {
        prompt: {name: (r.images, r.report, r.evaluations) for name, r in named.items()}
        for prompt, named in results.items()
    }


@path
def measures_of_pictures(kit):
    prior = kit.exact
    images = torch.rand(70, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(kit.device)
    data = torch.rand(66, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    world_report = metrics.evaluate(images[:5], prior, "warm", images[5:10])
    return (
        world_report,
        metrics.evaluate_unknown(images[:5], images[5:10]),
        [metrics.saturation(images), metrics.clipped(images)],
        metrics.precision_recall(images, data),
        metrics.coverage(images, data),
        metrics.vendi_score(images[:6]),
        metrics.frechet_distance(images, data),
        metrics.kid(images, data),
        metrics.table({"a": world_report}),
        metrics.distances(images[:3], data[:3]).tolist(),
        metrics.apart(images[:3], data[:3]).tolist(),
        metrics.blocks(images[:3]).tolist(),
    )


@path
def measures_of_scenes(kit):
    scene, world = kit.scene, toys()
    ring = orbit(4, 10.0)
    return (
        metrics.judge([scene, scene, scene], world, "a chair", ring, 16),
        metrics.judge_reconstructions([scene] * 3, view(), world.toys.subset([0, 1]), ring, 16),
        metrics.seen_as(scene, world, "a chair", 4, size=16).tolist(),
        metrics.janus(scene, world, "a chair", 4, size=16),
    )


@path
def text_to_a_scene(kit):
    return list(kit.scene.state_dict().values())


@path
def image_to_a_scene(kit):
    picture = toys().images(camera_index=0)[0]
    scene = image_to_3d(kit.new_views, picture.to(kit.device), seed=1, steps=4, stages=TWO)
    other = image_to_3d(kit.zero123, view(), seed=1, steps=2, **ONE)
    return scene.field.grid, other.field.grid


@path
def a_scene_to_look_at(kit):
    scene = kit.scene
    seen = scene.render([Camera(30, 10), Camera(200, 40)], 12, normals=True)
    generator = torch.Generator().manual_seed(0)
    return seen, scene.render(Camera(), 8, generator=generator).rgb, scene.images(RING, 8)


@path
def points_in_a_picture(kit):
    points = starting_noise(SEEDS, (3,), device=kit.device)
    return project(points, Camera(), 16)


@path
def a_mesh(kit):
    mesh = kit.scene.mesh(threshold=1.0, resolution=16)
    return mesh.vertices.tolist(), mesh.visual.vertex_colors.tolist()


@path
def a_hash_field(kit):
    field = HashField(levels=2, entries=64, coarsest=2, finest=8, hidden=4)
    run = distill_scene(
        kit.views, "a chair", SDS(), 0, 3, field=field, stages=(Stage(16, 8, 1.0, 2),)
    ).finish()
    return dict(run.scene.field.named_parameters()), run.scene.render(RING, 8, normals=True).rgb


@path
def the_published_setup_in_little(kit):
    """Cameras drawn afresh, lamps, a learned background, and the memory of a laptop."""
    prior = ViewPrompts(kit.pipeline("sd21", make_view_pipe), perp_neg=True)
    field = HashField(levels=2, entries=64, coarsest=2, finest=8, hidden=4)
    small = {"field": field, "steps": 2, "stages": (Stage(8, 8, 1.0, 2, samples=12),)}
    settings = diverse_score_distillation() | small | {"shading": Shading(after=0.0)}
    run = distill_scene(prior, "a cat", settings.pop("method"), 0, **settings).finish()
    return dict(run.scene.named_parameters()), run.scene.images(RING, 8)


@path
def a_pipeline_that_saves_memory(kit):
    prior, made = kit.pipeline("sd15"), []
    images = torch.rand(2, *prior.image_shape, generator=torch.Generator().manual_seed(0))
    images = images.to(kit.device).requires_grad_()
    prior.keep_tiny(make_pipe("tiny").vae)
    for memory in (PRESETS[0], PRESETS[-2], replace(PRESETS[-2], tiny=False)):
        prior.economise(memory)
        x = prior.encode(images)
        (slope,) = torch.autograd.grad(x.square().sum(), images)
        made += [x.detach(), slope, prior.predict_noise(x.detach(), 500, prior.condition("a cat"))]
    return made


@path
def a_scene_from_pictures(kit):
    images = toys().images(camera_index=None)[0].to(kit.device)
    scene = fit_views(images, RING, 4, resolutions=(6, 8), batch=64)
    return scene.field.grid, scene.occupancy.cells.tolist()


# ---- what is kept


def run_of(kit, prior, prompt, method):
    prior = getattr(kit, prior)
    return distill(prior, prior.condition(prompt), method, SEEDS, 4)


def resumed_elsewhere(kit, begin):
    """A run that begins on the CPU and goes on here, and one the other way round."""
    made = []
    for first, second in ((CPU, kit), (kit, CPU)):
        run, other = begin(first), begin(second)
        next(run), next(run)
        other.load_state_dict(run.state_dict())
        other.finish()
        x = other.x if hasattr(other, "x") else other.scene.field.grid
        assert x.device == second.device
        made.append(x.detach().to(kit.device))
    return made


CPU = kit("cpu")
KEEPING = ["sds", "cfd-gamma", "dsd", "dsd-x0", "sdi-cached", "vsd-network"]
for name in KEEPING:
    begin = partial(run_of, prior="exact", prompt="warm", method=METHODS[name])
    PATHS[f"resumed elsewhere, {name}"] = partial(resumed_elsewhere, begin=begin)


@path
def a_lora_resumed_elsewhere(kit):
    begin = partial(run_of, prior="network", prompt="a red cat", method=METHODS["vsd-lora"])
    return resumed_elsewhere(kit, begin)


@path
def a_scene_resumed_elsewhere(kit):
    def begin(kit):
        return distill_scene(kit.views, "a chair", METHODS["vsd-network"], 0, 4, stages=TWO)

    return resumed_elsewhere(kit, begin)


@path
def a_scene_and_its_checkpoint_in_files(kit):
    file = kit.folder / "scene.safetensors"
    settings = {"stages": TWO, "seed": 0, "steps": 4}
    half = distill_scene(CPU.views, "a chair", DSD(), **settings)
    next(half), next(half), half.save(file)
    scene = text_to_3d(kit.views, "a chair", DSD(), checkpoint=file, **settings)
    scene.save(kit.folder / "kept.safetensors")
    again = Scene.load(scene.save(kit.folder / "kept.safetensors"))
    assert again.field.grid.device == CPU.device
    scene.turntable(kit.folder / "film.gif", frames=2, size=8)
    return scene.field.grid, again.to(kit.device).render(Camera(), 8).rgb


@path
def a_study(kit):
    methods = {"SDS": SDS(), "DSD": DSD()}
    grid = Grid(methods, ["warm"], SEEDS, [Setting(cfg=2.0, steps=3)], ddim_steps=4)
    folder = kit.folder / "study"
    cells = study(kit.exact, grid, folder, progress=False)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in cells.rows]
    return rows, [summary.distance for summary in summarise(folder)]


@path
def a_study_on_an_executor(kit):
    grid = Grid({"DSD": DSD()}, ["warm"], SEEDS, [Setting(cfg=2.0, steps=3)], ddim_steps=4)
    with ThreadPoolExecutor(2) as threads:
        cells = study(kit.exact, grid, kit.folder / "study", executor=threads, progress=False)
    return [{k: v for k, v in row.items() if k != "seconds"} for row in cells.rows]


@path
def a_report(kit):
    results = compare(kit.exact, ["warm"], {"SDS": SDS()}, SEEDS, 2, ddim_steps=3)
    return write_report(kit.folder, results, SEEDS, {}).is_file()


@path
def half_precision(kit):
    prior = PipelinePrior(make_pipe("sd15"), device=kit.device, dtype=torch.float16)
    cond, made = prior.condition("a red cat"), []
    for name in ("sds", "vsd-lora"):
        run = distill(prior, cond, METHODS[name], SEEDS, 2).finish()
        made += [run.x, prior.decode(run.x)]
    return made


# ---- trainings and their exams


class Stop(Exception):
    pass


def stop(mini, step):
    raise Stop


@cache
def training_set(told_cameras):
    """Three objects of noise, each in two views if their cameras are told."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2 if told_cameras else 1, 3, 16, 16)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    captions = [toys().prompts[k::3] for k in range(3)]
    return TrainingSet("noise", pixels, captions, [RING[:2]] * 3 if told_cameras else None)


@cache
def autoencoder():
    folder = Path(tempfile.mkdtemp(dir=FILES.name))
    with seeded(7):
        make_autoencoder(16, TINY).save_pretrained(folder / "vae")
    return str(folder)


TINY = Recipe(
    autoencoder_steps=2, autoencoder_batch=2, autoencoder_widths=(8, 8, 8),
    steps=2, batch=2, widths=(16, 16, 16), text_width=16,
)  # fmt: skip


def trained(kit, task):
    """What a training makes that stops on the CPU and goes on here."""
    folder = kit.folder
    with pytest.raises(Stop):
        train(task, folder, device="cpu", every=1, samples=stop)
    return train(task, folder, device=kit.device)


@path
def a_mini_of_pictures(kit):
    pipe = trained(kit, TextToImage(training_set(told_cameras=False), TINY))
    labels, sources = torch.arange(2).repeat(35), (Source("made here", "noise", "none"),) * 70
    pixels = torch.arange(70, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16)
    world = PictureWorld("greys", ("a chair", "a duck"), pixels.contiguous(), labels, sources)
    prior = PipelinePrior(pipe, device=kit.device, dtype=torch.float32, world=world)
    numbers, samples = exam_of(prior).measure(1, 2.0)
    return numbers, samples.to(kit.device)


@path
def a_mini_of_toys(kit):
    pipe = trained(kit, TextToImage(training_set(told_cameras=True), TINY))
    world = replace(toys(), prompts=("a chair",))
    prior = PipelinePrior(pipe, device=kit.device, dtype=torch.float32, world=world)
    samples = exam_of(prior).sample(1, 2.0)
    scene = text_to_3d(prior, "a chair", SDS(), 0, 2, **ONE)
    return samples.to(kit.device), scene.field.grid


@path
def a_mini_of_new_views(kit):
    recipe = replace(TINY, autoencoder=autoencoder())
    prior = trained(kit, NovelView(training_set(told_cameras=True), recipe))
    decibels = reconstruction(prior, toys().images(camera_index=0))
    cond = prior.condition(view(), camera=RING[1:3])
    return decibels, ddim(prior, prior.noise([0, 1]), cond, 2, 2.0).images


# ---- what is shown


@path
def figures_of_points(kit):
    prior, cond = kit.points, kit.points.condition("left")
    start = prior.noise(range(5))
    made = ddim(prior, start, cond, 4)
    page = plots.trajectories(prior, {"DDIM": made.x_t}, cond)
    axis = torch.linspace(-1, 1, 5, device=kit.device)
    place = plots.square(axis).reshape(5, 5, 2)
    moment = Moment(500, 600, start[0], made.eps[0, 0], made.x_t[1, 0], made.final[0], start[1])
    drawn = [
        plots.field(prior, made, [int(made.t[2])], cond, 7.5),
        plots.ends(prior, cond, {"DDIM": made.final}),
        landscapes({"one": Landscape(axis, -(place[..., 0] ** 2), -place, start, start)}),
        interpolation(prior, cond, made, moment),
    ]
    return list(page.data[1].x), list(map(figures.png, drawn))


@path
def figures_of_pictures_and_scenes(kit):
    made = ddim(kit.exact, kit.exact.noise(SEEDS), kit.exact.condition("warm"), 4)
    ray = torch.linspace(2, 4, 5).to(kit.device)
    points = starting_noise([0], (4, 3), device=kit.device)[0].sigmoid()
    drawn = [
        figures.grid({"DDIM": made.images}, SEEDS, drawings=made.images[:1]),
        figures.strips(made, 1, 3),
        views.views_grid({"a": kit.scene.images(RING, 8)}, RING),
        *(views.look_from(kit.scene, 30, 20, 8, shows)[0] for shows in views.LOOKS),
        views.ray_figure(ray, ray, 0.5, ray[:, None].expand(-1, 3) / 4),
        views.camera_rig({"ring": RING}, points, points, {"ray": points}),
        views.seen_from({"a": 90 * ray}),
        views.mesh_figure(kit.scene.mesh(1.0, 12)),
    ]
    run = distill_scene(kit.views, "a chair", SDS(), 0, 2, stages=TWO)
    watched = live.Live(0.0, RING, 8, notebook=False)
    film = views.turning(kit.scene, "it turns", frames=2, size=8).data
    shown = list(map(figures.png, drawn[:-1])), film, live.as_png(watched.look(run))
    experiment = views.on_scene(lambda: run, RING, 8)
    assert experiment.take() and experiment.seen().picture
    return *shown, experiment.curves


@pytest.fixture(autouse=True)
def one_attention():
    """PyTorch picks attention's kernel by the device's name; this one is everywhere."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


LONG = {
    "a mini of pictures", "a mini of toys", "a mini of new views", "the published setup in little",
    "a lora resumed elsewhere", "paths and back", "image to a scene", "half precision",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in PATHS]
)
def test_a_path_runs_on_its_device_with_the_numbers_of_the_cpu(name):
    found, expected = (PATHS[name](kit(device)) for device in (MOCK, "cpu"))
    loose = name == "half precision" or name.startswith("a mini")  # Adam's first steps are signs
    alike(found, expected, MOCK, name, 1e-2 if loose else 1e-5)
