"""The few lines that compose the rooms: from a prompt and seeds to pictures, and to a comparison of
methods.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .cameras import Camera
from .checks import at_least
from .distill import (
    SCENE_DSD,
    STAGES,
    Run,
    SceneRun,
    Stage,
    check_settings,
    distill,
    distill_scene,
    fit_stages,
)
from .draws import check_seeds
from .files import expanded
from .inputs import input_view
from .methods import DSD, Method
from .metrics import Report, evaluate
from .priors import Prior
from .sampling import ddim
from .scene import Scene

# guidance as in Zero-1-to-3's own distillation. t falls evenly, so that the scene can follow while
# the back is decided: where it lags, its own plain back is taken for a wish
NOVEL_VIEW_DSD = DSD(form="x0", t_min=0.02, cfg=3.0, anneal="linear")
# for priors that denoise each view alone: first four views, of which one is of the back, whose own
# path then decides it. If many views of the back begin, each on a path of its own, they settle on
# what lies between their wishes, and that is the same for every seed
NOVEL_VIEW_STAGES = (Stage(32, 32, 0.6, 4, ring=4), Stage(32, 32, 0.2, 4), Stage(64, 64, 0.2, 2))


def distill_images(
    prior: Prior,
    prompt: str | Sequence[str],
    method: Method,
    seeds: Sequence[int],
    steps: int = 300,
    *,
    negative: str | Sequence[str] | None = None,
    progress: Callable[[Run], None] | None = None,
    **settings,
) -> Run:
    """Distil one picture a seed and return the finished run: `run.images` (B, 3, H, W) in [0, 1].

    prompt: one for all seeds, or one a seed. settings: as in `distill`. progress: called with the
    run after each step. Ctrl-C returns what there is (`run.finished` tells). Raises TypeError for a
    prior of points, ValueError for anything that cannot be.
    """
    if len(prior.shape) != 3:
        raise TypeError(
            f"distill_images needs a prior of pictures; {prior.name} has items of shape "
            f"{prior.shape}: use distill"
        )
    cond = prior.condition(prompt, negative)
    return distill(prior, cond, method, seeds, steps, **settings).finish(progress)


def text_to_3d(
    prior: Prior,
    prompt: str,
    method: Method = SCENE_DSD,
    seed: int = 0,
    steps: int = 400,
    *,
    checkpoint: str | Path | None = None,
    every: int = 50,
    progress: Callable[[SceneRun], None] | None = None,
    **settings,
) -> Scene:
    """Distil one object from a prior of views and return the scene: `scene.render(camera)`,
    `.mesh()`, `.turntable(path)`.

    method: DSD at unit gain unless given, since a scene meets each target only in part (see lesson
    07).
    checkpoint: a .safetensors file, written every so many steps and on Ctrl-C; if it is there, the
    run goes on from it, to the same result. settings: as in `distill_scene`. progress: called with
    the run after each step. Ctrl-C returns what there is. Raises ValueError for anything that
    cannot be, a checkpoint of another run among it.
    """
    run = distill_scene(prior, prompt, method, seed, steps, **settings)
    return _driven(run, checkpoint, every, progress)


def image_to_3d(
    prior: Prior,
    image,
    method: Method = NOVEL_VIEW_DSD,
    seed: int = 0,
    steps: int = 300,
    *,
    image_camera: Camera | None = None,
    stages: Sequence[Stage] | None = None,
    checkpoint: str | Path | None = None,
    every: int = 50,
    progress: Callable[[SceneRun], None] | None = None,
    **settings,
) -> Scene:
    """Reconstruct one object from one picture, by a prior of new views, and return the scene.

    The scene is fitted to the picture at every step, and distilled from all other views: what the
    picture does not show is the prior's, and the seed's. image, image_camera: as for
    `dsd_lab.input_view`, which says what is assumed of the camera.
    method: by default DSD in its x0 form (ours), with guidance 3 and t falling evenly. stages: by
    default, if the prior denoises each view alone, four views at first, then all; both matter for
    what the picture does not show. The rest as in `text_to_3d`.
    Raises TypeError or ValueError for anything that cannot be.
    """
    if prior.asked_by != "picture":
        raise TypeError(
            f"{prior.name} is asked by a prompt: use text_to_3d, or a prior of new views such as "
            '"toybox-novel-view"'
        )
    view = input_view(image, image_camera, prior.picture_size)
    if stages is None:
        stages = fit_stages(STAGES if prior.all_at_once else NOVEL_VIEW_STAGES, prior)
    run = distill_scene(prior, None, method, seed, steps, view=view, stages=stages, **settings)
    return _driven(run, checkpoint, every, progress)


def _driven(
    run: SceneRun,
    checkpoint: str | Path | None,
    every: int,
    progress: Callable[[SceneRun], None] | None,
) -> Scene:
    """The scene of a run that is resumed from its checkpoint if there is one, driven to its end,
    and kept on the way.
    """
    at_least("every", every)
    if checkpoint is None:
        return run.finish(progress).scene
    file = expanded(checkpoint)
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent} for the checkpoint")
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder; give a file for the checkpoint, such as "
            f"{file / 'scene.safetensors'}"
        )
    if file.is_file():
        run.resume(file)

    def after_step(run):
        if run.index % every == 0:
            run.save(file)
        if progress:
            progress(run)

    run.finish(after_step)
    run.save(file)
    return run.scene


@dataclass(frozen=True)
class Result:
    """One method on one prompt: images (B, 3, H, W), its report, and what it took.

    evaluations: predictions an item, in all. seconds: its share of the batch's. settings: start,
    optimiser, rate, ... as they were used.
    """

    images: Tensor
    report: Report
    evaluations: float
    seconds: float
    settings: dict
    finished: bool = True


def compare(
    prior: Prior,
    prompts: Sequence[str],
    methods: Mapping[str, Method],
    seeds: Sequence[int],
    steps: int = 300,
    *,
    cfg: float = 7.5,
    ddim_steps: int = 50,
    progress: Callable[[str, Run], None] | None = None,
    **settings,
) -> dict[str, dict[str, Result]]:
    """DDIM and each method from the same seeds, measured alike: {prompt: {name: result}}, "DDIM"
    first.

    prompts: all of them run in one batch, each with all seeds. methods: by the name to show; their
    own cfg counts.
    steps: of every method but DSD*, which takes DDIM's. settings: as in `distill`, for all.
    progress: called with the name and the run after each step. Ctrl-C ends the comparison after the
    step under way: what it returns then has results with finished=False.
    """
    if isinstance(prompts, str):
        raise TypeError(f'prompts must be a sequence of prompts, got one; give ["{prompts}"]')
    if "DDIM" in methods:
        raise ValueError('"DDIM" names the reference; give the method another name')
    seeds = check_seeds(seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds repeat: {seeds}; a seed counts once in a comparison")
    steps_of = {}
    for name, method in methods.items():
        check_settings(method, steps, **settings)  # before any work is done
        steps_of[name] = ddim_steps if method.takes_ddim_steps else steps
    prompts = list(dict.fromkeys(prior.resolve(p) for p in prompts))
    cond = prior.condition([p for p in prompts for _ in seeds])
    every_seed = seeds * len(prompts)
    results: dict[str, dict[str, Result]] = {p: {} for p in prompts}

    def add(name, images, began, before, used, finished=True):
        evaluations = (prior.evaluations - before) / len(every_seed)
        seconds = (time.perf_counter() - began) / len(prompts)
        for prompt, part in zip(prompts, images.split(len(seeds)), strict=True):
            reference = results[prompt]["DDIM"].images if results[prompt] else None
            report = evaluate(part, prior, prompt, reference)
            results[prompt][name] = Result(part, report, evaluations, seconds, used, finished)

    began, before = time.perf_counter(), prior.evaluations
    path = ddim(prior, prior.noise(every_seed), cond, ddim_steps, cfg)
    add("DDIM", path.images, began, before, {"steps": ddim_steps, "cfg": cfg})
    for name, method in methods.items():
        began, before = time.perf_counter(), prior.evaluations
        run = distill(prior, cond, method, every_seed, steps_of[name], **settings)
        run.finish((lambda run, name=name: progress(name, run)) if progress else None)
        add(name, run.images, began, before, run.settings, run.finished)
        if not run.finished:
            break
    return results
