"""The optimisation loop on a scene: a method's gradient on the pictures of some views, carried back
into the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checkpoint
from ..cameras import Camera, CameraRanges, check_cameras
from ..draws import run_generator
from ..inputs import InputView
from ..methods import DSD, Method, State
from ..priors import Memory, Prior
from ..priors.memory import pick_memory, smaller
from ..scene import Field, GridField, NeuralBackground, Occupancy, Scene, Shading
from ..scene.regularisers import Ramp
from ..threads import one_thread
from .loop import REMEDY, Loop, asks, check_method
from .settings import FAITHFUL, STAGES, SceneSettings, Stage, cameras_for, fit_stages
from .stage import StageRun
from .targets import Targets
from .terms import Faithful, Regularised

# ours: the paper's difference at unit gain. A scene meets each target only in part, and at
# neighbouring levels the difference is too small for that (see `DSD`)
SCENE_DSD = DSD(form="unit")
REFRESH = 4
JOINT_REFRESH = 8  # a joint prior is asked for all views at once, so less often
LEARNING_RATE = 0.1
EMPTY = 0.5  # a cell with less density than this is skipped
REGULARISERS = {"sparsity": 0.01}


class SceneStep(NamedTuple):
    """A record of one step, detached from the run: the views it fitted, their pictures (V, 3, H,
    W), the method's last t.
    """

    index: int
    cameras: tuple[Camera, ...]
    images: Tensor
    t: Tensor


class SceneRun(Loop):
    """One object under way: it owns the scene, the draws, and the stage with its optimiser, held
    targets and the method's state.

        each step:  x = encode(render(scene, views));  g from the method
                    loss = |x - sg(x - g)|^2 / 2, mean over views, + the terms

    All views share the seed's e*; at a smaller size it is the mean of each block of pixels, times
    the block's side, so that it is N(0, I) again and begins the same paths. refresh m > 1: each
    target x - g is held; every m steps the method is asked for the next views' targets, in turn
    (for all, if the prior takes all at once), and each step fits some of all that are held.
    conditioning: what the prior's `condition` is given beside the cameras; a picture among it is
    one that the scene must show too, in every step (`Faithful`). memory: where it runs out in a
    step, that step is taken again with the next smaller preset.
    Iterating yields a `SceneStep` after each step; `state_dict()` is the checkpoint, to the bit.
    """

    def __init__(
        self,
        prior: Prior,
        conditioning: Mapping[str, object],
        method: Method,
        settings: SceneSettings,
        field: Field | None = None,
        background: float | Tensor | NeuralBackground = 1.0,
        memory: Memory | None = None,
    ):
        super().__init__(prior, settings.steps)
        self.method, self.settings = method, settings
        self.conditioning, self.view = dict(conditioning), conditioning.get("image")
        field = GridField(settings.stages[0].resolution) if field is None else field
        self.scene = Scene(field, Occupancy(threshold=EMPTY), background).to(prior.device)
        self.memory = memory
        self.e_star = prior.noise([settings.seed])[0]
        self.generator = run_generator(settings.seed)
        self.terms = [Regularised(settings.regularisers)] if settings.regularisers else []
        if self.view is not None:
            self.terms.append(Faithful(self.view.to(prior.device), settings.faithful))
        if memory is not None:
            prior.economise(memory)
        self.stage = begin_stage(self, 0)

    def prepare(self) -> None:
        number = self.settings.stage_at(self.index)
        if number != self.stage.number:
            self.stage = begin_stage(self, number)

    def step(self) -> SceneStep:
        stage, normals = self.stage, any(term.needs_normals for term in self.terms)
        views, x, rendering = stage.fit(self.index, normals)
        loss = stage.targets.loss(views, x)
        for term in self.terms:
            loss = loss + stage.whole * term(self, rendering)
        stage.optimizer.zero_grad()
        loss.backward()
        slopes = [p.grad for p in self.scene.parameters() if p.grad is not None]
        check_step(self, "loss or its gradient", loss, *slopes)
        stage.optimizer.step()
        check_step(self, "scene after it", *self.scene.parameters())
        self.scene.step()
        self.index += 1
        cameras = tuple(stage.cameras[i] for i in views.tolist())
        return SceneStep(self.index, cameras, rendering.rgb.detach(), stage.t.clone())

    def economise(self) -> bool:
        memory = smaller(self.memory) if self.memory else None
        if memory is None:
            return False
        print(f"out of memory at step {self.index + 1}: on with the preset {memory.name}")
        self.memory = self.stage.memory = memory
        self.prior.economise(memory)
        return True

    @property
    def header(self) -> dict[str, object]:
        """What tells this run from others: a checkpoint's header."""
        return {
            "method": str(self.method),
            **self.prior.identity(),
            **described(self.conditioning),
            **self.settings.header(),
            "field": type(self.scene.field).__name__,
            "backdrop": self.scene.backdrop and type(self.scene.backdrop).__name__,
        }

    def state_dict(self):
        stage, prefixed = self.stage, checkpoint.prefixed
        tensors = {
            "index": torch.tensor(self.index),
            "stage": torch.tensor(stage.number),
            "t": stage.t,
            "generator": self.generator.get_state(),
            **prefixed("targets", stage.targets.state_dict()),
            **prefixed("method", stage.state.state_dict()),
            **prefixed("scene", self.scene.state_dict()),
            **prefixed("optimizer", checkpoint.flatten(stage.optimizer)),
        }
        if self.settings.fresh:
            tensors["cameras"] = numbers_of(stage.cameras)
        return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint of a run with the same settings."""
        self.scene.load_state_dict(checkpoint.part(state, "scene"))
        self.stage = resumed_stage(self, state)
        self.generator.set_state(state["generator"].clone())
        self.index = int(state["index"])

    def save(self, path: str | Path) -> Path:
        """Write the checkpoint as .safetensors, whole or not at all: a full disk leaves the old one
        as it was.
        """
        return checkpoint.save(path, self.state_dict(), self.header)

    def resume(self, path: str | Path) -> SceneRun:
        """Go on from a checkpoint file. Raises ValueError for one of another run, naming what
        differs.
        """
        self.load_state_dict(checkpoint.load(path, self.header))
        return self


def begin_stage(run: SceneRun, number: int) -> StageRun:
    """A stage at its beginning: its prior, its cameras, a new optimiser; the scene's grid gets its
    resolution.
    """
    settings, plan = run.settings, run.settings.stages[number]
    prior = run.prior.at_size(plan.size)
    around = run.view.camera if run.view else Camera()
    cameras = settings.cameras_of(plan, around, run.generator)
    block = run.prior.shape[-1] // prior.shape[-1]
    e_star = F.avg_pool2d(run.e_star[None], block) * block
    e_star = e_star.expand(len(cameras), *prior.shape).contiguous()

    def asked_from(cameras):
        return prior.condition(**run.conditioning, camera=cameras if prior.cameras else None)

    cond = asked_from(cameras)

    @torch.no_grad()
    def begin() -> State:
        with one_thread(prior.unet):
            return run.method.begin(prior, cond, e_star, asks(run.steps, settings.refresh))

    if run.scene.field.resolution not in (None, plan.resolution):
        run.scene.upsample(plan.resolution)
    return StageRun(
        number,
        plan,
        run.scene,
        prior,
        cameras,
        run.method,
        begin,
        Targets(e_star, 1 if prior.all_at_once else prior.views_per_item),
        run.generator,
        settings.refresh,
        adam_for(run.scene, settings.lr),
        t=torch.zeros(0, dtype=torch.int64),
        asked_from=asked_from,
        ranges=settings.cameras if settings.fresh else None,
        shading=settings.shading,
        memory=run.memory,
    )


def resumed_stage(run: SceneRun, state: Mapping[str, Tensor]) -> StageRun:
    """The stage that a checkpoint is in, of a run whose scene is the checkpoint's."""
    number, part = int(state["stage"]), checkpoint.part
    stage = run.stage if number == run.stage.number else begin_stage(run, number)
    optimizer = adam_for(run.scene, run.settings.lr)  # a loaded grid may be a new parameter
    checkpoint.restore(optimizer, part(state, "optimizer"))
    stage.targets.load_state_dict(part(state, "targets"))
    method_state = stage.state.restored(part(state, "method"))
    stage = replace(stage, optimizer=optimizer, t=state["t"].clone())
    stage.state = method_state
    if "cameras" in state:
        stage.look_from(tuple(Camera(*row) for row in state["cameras"].tolist()))
    return stage


def check_step(run: SceneRun, what: str, *values: Tensor) -> None:
    """Raises ValueError, for a step that would spoil the scene, unless all values are finite."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise ValueError(
            f"the {what} is not finite at step {run.index + 1}, t = {run.stage.t.tolist()}; the "
            "run is left as it was before the step; lower the weights of regularisers or faithful, "
            f"or {REMEDY}"
        )


def numbers_of(cameras: Sequence[Camera]) -> Tensor:
    """What tells cameras apart: float64 (V, 4), to the bit."""
    return torch.tensor(list(map(astuple, cameras)), dtype=torch.float64)


def adam_for(scene: Scene, lr: float) -> torch.optim.Adam:
    """The optimiser of a scene's field, and of a background that is learned."""
    return torch.optim.Adam(scene.parameters(), lr=lr, betas=(0.9, 0.99), eps=1e-15, foreach=False)


def described(conditioning: Mapping[str, object]) -> dict[str, object]:
    """What a prior is asked by, as JSON can hold it; a picture as a digest."""
    view = conditioning.get("image")
    if view is None:
        return {"prompt": conditioning["prompt"], "negative": conditioning["negative"] or ""}
    pixels = torch.cat([view.image, view.mask]).mul(255).round().byte().cpu().numpy().tobytes()
    return {"picture": f"digest {crc32(pixels):08x}", "picture's camera": str(view.camera)}


def check_conditioning(
    prior: Prior, prompt: str | None, negative: str | None, view: InputView | None
) -> dict[str, object]:
    """What the prior's `condition` is given beside the cameras. Raises TypeError where the prior is
    asked by something else.
    """
    if len(prior.shape) != 3:
        raise TypeError(
            f"a scene needs a prior of pictures; {prior.name} has items of shape {prior.shape}"
        )
    if prior.asked_by == "picture":
        if not isinstance(view, InputView):
            raise TypeError(
                f"{prior.name} is asked by a picture: use image_to_3d, or give "
                "view=input_view(image)"
            )
        return {"image": view}
    if view is not None:
        raise TypeError(
            f"{prior.name} is asked by a prompt: use text_to_3d, or a prior of new views such as "
            '"toybox-novel-view"'
        )
    return {"prompt": prior.resolve(prompt), "negative": negative}


def distill_scene(
    prior: Prior,
    prompt: str | None,
    method: Method,
    seed: int,
    steps: int = 400,
    *,
    negative: str | None = None,
    view: InputView | None = None,
    refresh: int | None = None,
    stages: Sequence[Stage] | None = None,
    lr: float = LEARNING_RATE,
    regularisers: Mapping[str, float | Ramp] | None = None,
    cameras: Sequence[Camera] | CameraRanges | None = None,
    faithful: Mapping[str, float] | None = None,
    field: Field | None = None,
    background: float | Tensor | NeuralBackground = 1.0,
    shading: Shading | None = None,
    memory: str | Memory | None = None,
) -> SceneRun:
    """A run of a method on a scene, one object, ready to iterate or `finish()`.

    prompt: of the prior; None for a prior of new views, which is asked by the picture `view` (and
    then the scene must show that too, with weights `faithful`, {"rgb": ..., "mask": ...}). seed: of
    e* and all draws. steps: optimisation steps.
    refresh: hold each target for so many steps, 4 by default, 8 for a joint prior. stages: coarse
    to fine, by default `STAGES` in sizes that the prior has. lr: of Adam on the grid. regularisers:
    weights by name, see `dsd_lab.scene.regularisation`. cameras: the views to optimise, the prior's
    own bank by default; or `CameraRanges`, from which as many as the stage has views are drawn each
    time that the method is asked. field: a new grid, unless given; a `HashField` is at home on a
    GPU and knows no resolutions. background: white, or one that is learned. shading: random lamps,
    at refresh 1. memory: a preset's name, "auto" for the device's, or None to take what it takes;
    where it runs out, the run goes on with the next smaller one.
    Raises TypeError or ValueError for what cannot be.
    """
    check_scene_method(method)
    if faithful and view is None:
        raise ValueError("faithful weighs how well a scene shows its picture, and there is none")
    conditioning = check_conditioning(prior, prompt, negative, view)
    if faithful is None:
        faithful = {} if view is None else FAITHFUL
    settings = SceneSettings(
        seed,
        steps,
        (JOINT_REFRESH if prior.all_at_once else REFRESH) if refresh is None else refresh,
        fit_stages(STAGES, prior) if stages is None else tuple(stages),
        lr,
        REGULARISERS if regularisers is None else dict(regularisers),
        dict(faithful),
        chosen_views(cameras, prior, method, seed),
        None if shading is None else shading.check(),
    )
    memory = pick_memory(memory, prior.device)
    return SceneRun(prior, conditioning, method, settings, field, background, memory)


def check_scene_method(method: Method) -> None:
    """Raises TypeError unless it is a method object, ValueError for one that drives no scene."""
    check_method(method)
    if method.repulsion:
        raise ValueError("repulsion couples the seeds of a batch of pictures; a scene has one seed")
    if not method.for_scenes:
        raise ValueError(f"{method.name} is for pictures: a scene cannot take its x from the prior")


def chosen_views(
    cameras: Sequence[Camera] | CameraRanges | None, prior: Prior, method: Method, seed: int
) -> tuple[Camera, ...] | CameraRanges:
    """The views to optimise, see `cameras_for` unless given, or what they are drawn from.

    Raises ValueError where they are to be drawn afresh for each ask and cannot be.
    """
    if not isinstance(cameras, CameraRanges):
        return check_cameras(cameras_for(prior, seed) if cameras is None else cameras)
    if prior.cameras not in (None, "any") or prior.views_per_item > 1:
        raise ValueError(
            f"{prior.name} knows its own cameras alone, or sets of them, so none can be drawn "
            "afresh: give some of them, or none"
        )
    if method.keeps:
        raise ValueError(
            f"{method} keeps a path for each view, and cameras drawn afresh are never the same: "
            "give it keep_path=False"
        )
    return cameras
