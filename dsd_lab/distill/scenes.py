"""The optimisation loop on a scene: a method's gradient on the pictures of some views, carried back
into the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checkpoint
from ..cameras import BANK, Camera, check_cameras, nearest, orbit
from ..draws import ViewDraws
from ..inputs import InputView
from ..methods import DDS, DSD, DSDStar, Method, State
from ..priors import Condition, Prior, ViewSet
from ..scene import Field, GridField, Occupancy, Scene
from ..scene.regularisers import regularisation
from .pictures import Loop


class Stage(NamedTuple):
    """A part of the run, coarse to fine: pictures of `size` pixels, a grid of `resolution`, share
    of the steps, views a step.

    ring: optimise only so many cameras of the bank, evenly around from the given picture's, or from
    the front; 0 is all.
    """

    size: int
    resolution: int
    share: float
    views: int
    ring: int = 0


STAGES = (Stage(32, 32, 0.75, 4), Stage(64, 64, 0.25, 2))
SCENE_DSD = DSD(
    form="x0", t_min=0.02
)  # the form in which views that want different objects come to agree
REFRESH = 4
JOINT_REFRESH = 8  # a joint prior is asked for all views at once, so less often
LEARNING_RATE = 0.1
SAMPLES = 48
EMPTY = 0.5  # a cell with less density than this is skipped
REGULARISERS = {"sparsity": 0.01}
FAITHFUL = {"rgb": 1.0, "mask": 0.1}  # ten to one, as Zero-1-to-3's own distillation has it


class SceneStep(NamedTuple):
    """A record of one step, detached from the run: the views it fitted, their pictures (V, 3, H,
    W), the method's last t.
    """

    index: int
    cameras: tuple[Camera, ...]
    images: Tensor
    t: Tensor


class SceneRun(Loop):
    """One object under way: it owns the scene, the optimiser, the draws, the held targets and the
    method's state.

        each step:  x = encode(render(scene, views));  g from the method;  loss = |x - sg(x - g)|^2 / 2, mean over views

    All views share the seed's e*; at a smaller size it is the mean of each block of pixels, times
    the block's side, so that it is N(0, I) again and begins the same paths. refresh m > 1: each
    target x - g is held; every m steps the method is asked for the next views' targets, in turn
    (for all, if the prior denoises views jointly), and each step fits some of all that are held.
    view: a picture that the scene must show too, in every step:  + rgb |picture difference|^2 + mask |opacity difference|^2,
    means over pixels, weighted by `faithful`, in units of a target's whole squared difference a
    pixel.
    asked: what the prior's `condition` is given beside the cameras.
    Iterating yields a `SceneStep` after each step; `state_dict()` is the checkpoint, to the bit.
    """

    def __init__(
        self,
        prior: Prior,
        asked: Mapping[str, object],
        method: Method,
        seed: int,
        steps: int,
        refresh: int,
        stages: Sequence[Stage] = STAGES,
        lr: float = LEARNING_RATE,
        regularisers=None,
        cameras=None,
        view: InputView | None = None,
        faithful: Mapping[str, float] | None = None,
        field: Field | None = None,
    ):
        self.prior, self.method, self.seed, self.steps, self.refresh = (
            prior,
            method,
            seed,
            steps,
            refresh,
        )
        self.asked, self.stages, self.lr, self.view = dict(asked), tuple(stages), lr, view
        self.faithful = dict(FAITHFUL if faithful is None else faithful)
        self.regularisers = REGULARISERS if regularisers is None else dict(regularisers)
        known = BANK if prior.cameras in (None, "any") else prior.cameras
        self.bank = known if cameras is None else check_cameras(cameras)
        field = GridField(stages[0].resolution) if field is None else field
        self.scene = Scene(field, Occupancy(threshold=EMPTY)).to(prior.device)
        self.draws = ViewDraws(seed, prior.shape, prior.dtype, prior.device)
        self.e_star = prior.noise([seed])[0]
        self.settings = {
            "method": str(method),
            "prior": prior.name,
            "shape": prior.shape,
            "scale": getattr(prior, "scale", None),
            "prompt": asked.get("prompt", ""),
            "negative": asked.get("negative") or "",
            "seed": seed,
            "steps": steps,
            "refresh": refresh,
            "lr": lr,
            "field": type(field).__name__,
            "stages": [tuple(s) for s in stages],
            "regularisers": self.regularisers,
            "cameras": f"{len(self.bank)} (digest {crc32(repr(self.bank).encode()):08x})",
        }
        if view is not None:
            pixels = torch.cat([view.image, view.mask]).mul(255).round().byte().numpy().tobytes()
            self.settings |= {
                "picture": f"digest {crc32(pixels):08x}",
                "picture's camera": str(view.camera),
                "faithful": self.faithful,
            }
        self._enter(0)

    # ---- stages

    def _enter(self, number: int) -> None:
        """Begin a stage: its prior, the method's state for all cameras of the bank, the grid, a new
        optimiser.
        """
        stage = self.stages[number]
        self.stage, self.number = stage, number
        self.here = (
            self.prior.at_size(stage.size) if isinstance(self.prior, ViewSet) else self.prior
        )
        self.cameras = self._ring(stage.ring) if stage.ring else self.bank
        block = self.prior.shape[-1] // self.here.shape[-1]
        e_star = F.avg_pool2d(self.e_star[None], block) * block
        views = len(self.cameras)
        with torch.no_grad():
            e_star = e_star.expand(views, *self.here.shape).contiguous()
            self.state: State = self.method.begin(
                self.here, self._condition(), e_star, -(-self.steps // self.refresh)
            )
        self.draws.shape = self.here.shape
        if (
            isinstance(self.scene.field, GridField)
            and stage.resolution != self.scene.field.resolution
        ):
            self.scene.upsample(stage.resolution)
        self.optimizer = self._adam()
        self.target = torch.zeros(
            views, *self.here.shape, dtype=self.here.dtype, device=self.here.device
        )
        self.held = torch.zeros(views, dtype=torch.bool)
        self.order = torch.zeros(0, dtype=torch.int64)  # cameras still to come in this turn
        self.t = torch.zeros(0, dtype=torch.int64)

    def _ring(self, count: int) -> tuple[Camera, ...]:
        """So many cameras of the bank, evenly around."""
        first = Camera() if self.view is None else self.view.camera
        wanted = orbit(count, first.elevation, first.distance, first.fov, first.azimuth)
        return tuple(dict.fromkeys(self.bank[nearest(camera, self.bank)] for camera in wanted))

    def _condition(self) -> Condition:
        if self.prior.cameras is None:
            return self.here.condition(
                **{**self.asked, "prompt": [self.asked["prompt"]] * len(self.cameras)}
            )
        return self.here.condition(**self.asked, camera=self.cameras)

    def _adam(self):
        return torch.optim.Adam(
            self.scene.field.parameters(), lr=self.lr, betas=(0.9, 0.99), eps=1e-15, foreach=False
        )

    def _due(self, index: int) -> int:
        """The number of the stage that a step belongs to."""
        done = 0.0
        for number, stage in enumerate(self.stages):
            done += stage.share
            if index < round(done * self.steps):
                return number
        return len(self.stages) - 1

    # ---- a step

    def __next__(self) -> SceneStep:
        if self.index >= self.steps:
            raise StopIteration
        if (number := self._due(self.index)) != self.number:
            self._enter(number)
        ask = self.index % self.refresh == 0 or not bool(self.held.any())
        if self.refresh == 1:
            views = self._next(self.stage.views)
            x, seen = self._look(views)
            self._ask(views, x.detach())
        else:
            if ask:
                views = self._next(2 * self.stage.views)
                with torch.no_grad():
                    self._ask(views, self._look(views)[0])
            pool = self.held.nonzero()[:, 0]
            views = (
                pool[torch.randperm(len(pool), generator=self.draws.generator)[: self.stage.views]]
                .sort()
                .values
            )
            x, seen = self._look(views)
        loss = (x - self.target[views]).square().sum() / (2 * len(views))
        # in units of one whole squared difference a pixel, so that a weight means the same at every
        # size
        if self.regularisers:
            loss = loss + x[0].numel() * self.unit**2 * regularisation(
                seen, self.index / self.steps, self.regularisers
            )
        if self.view is not None:
            loss = loss + x[0].numel() * self.unit**2 * self._unfaithful()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scene.step()
        self.index += 1
        return SceneStep(
            self.index,
            tuple(self.cameras[i] for i in views.tolist()),
            seen.rgb.detach(),
            self.t.clone(),
        )

    @property
    def unit(self) -> float:
        """How far x moves when a picture goes from black to white."""
        return 2 * getattr(self.here, "scale", 1.0)

    def _next(self, count: int) -> Tensor:
        """The next cameras of the bank, in turn, each turn in a new order: int64 (count,), sorted;
        all of a joint prior's.
        """
        if self.prior.views_per_item > 1:
            count = len(self.cameras)
        while len(self.order) < count:
            self.order = torch.cat(
                [self.order, torch.randperm(len(self.cameras), generator=self.draws.generator)]
            )
        views, self.order = self.order[:count].unique(), self.order[count:]
        return views

    def _look(self, views: Tensor):
        """The views in the prior's space (V, *shape), and their rendering, with gradients unless
        they are switched off.
        """
        cameras = [self.cameras[i] for i in views.tolist()]
        seen = self.scene.render(
            cameras,
            self.stage.size,
            SAMPLES,
            grad=torch.is_grad_enabled(),
            generator=self.draws.generator,
            normals=torch.is_grad_enabled()
            and bool({"orientation", "convexity"} & set(self.regularisers)),
        )
        side = getattr(self.here, "image_shape", self.here.shape)[-1]
        images = (
            seen.rgb
            if side == self.stage.size
            else F.interpolate(seen.rgb, (side, side), mode="bilinear", align_corners=False)
        )
        return self.here.encode(images), seen

    def _unfaithful(self) -> Tensor:
        """How far the scene is from the picture that it must show: a scalar."""
        wanted = self.view.at_size(self.stage.size)
        seen = self.scene.render(
            self.view.camera, self.stage.size, SAMPLES, grad=True, generator=self.draws.generator
        )
        return (
            self.faithful.get("rgb", 0.0) * (seen.rgb[0] - wanted.image).square().mean()
            + self.faithful.get("mask", 0.0) * (seen.opacity[0] - wanted.mask).square().mean()
        )

    @torch.no_grad()
    def _ask(self, views: Tensor, x: Tensor) -> None:
        """Ask the method for the views' targets x - g, and hold them."""
        part = self.state.select(views)
        self.draws.views = len(views)
        g, self.t = self.method.gradient(part, x, self.index // self.refresh, self.draws)
        self.state.merge(views, part)
        self.target[views], self.held[views] = x - g, True

    # ---- keeping

    @property
    def kept_bytes(self) -> int:
        """Memory of the paths that the method keeps for all views of this stage."""
        path = getattr(self.state, "path", None)
        return (
            0
            if path is None
            else sum(part.numel() * part.element_size() for part in (path.x_t, path.eps, path.x0))
        )

    def state_dict(self) -> dict[str, Tensor]:
        """All that a run of the same settings needs to go on from here, to the bit: a flat dict of
        tensors.
        """
        parts = {
            "index": torch.tensor(self.index),
            "stage": torch.tensor(self.number),
            "target": self.target,
            "held": self.held,
            "order": self.order,
            "t": self.t,
            **self.draws.state_dict(),
        }
        parts |= checkpoint.prefixed("method", self.state.state_dict())
        parts |= checkpoint.prefixed("scene", self.scene.state_dict())
        parts |= checkpoint.prefixed("optimizer", checkpoint.flatten(self.optimizer))
        return {name: tensor.detach().clone().contiguous() for name, tensor in parts.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint of a run with the same settings."""

        self.index = int(state["index"])
        if int(state["stage"]) != self.number:
            self._enter(int(state["stage"]))
        part = checkpoint.part
        self.scene.load_state_dict(part(state, "scene"))
        self.optimizer = self._adam()
        checkpoint.restore(self.optimizer, part(state, "optimizer"))
        self.draws.load_state_dict(state)
        kept = part(state, "method")
        self.state.load_state_dict({name: value.clone() for name, value in kept.items()})
        self.target = state["target"].to(self.target.device, copy=True)
        self.held, self.order, self.t = (state[k].clone() for k in ("held", "order", "t"))

    def save(self, path: str | Path) -> Path:
        """Write the checkpoint as .safetensors, whole or not at all: a full disk leaves the old one
        as it was.
        """
        return checkpoint.save(path, self.state_dict(), self.settings)

    def resume(self, path: str | Path) -> SceneRun:
        """Go on from a checkpoint file. Raises ValueError for one of another prompt, version or
        setting.
        """
        self.load_state_dict(checkpoint.load(path, self.settings))
        return self


def check_stages(stages: Sequence[Stage]) -> None:
    """Raises ValueError unless there are stages, and each is possible."""
    for stage in stages:
        whole = (stage.size, stage.resolution, stage.views)
        if (
            any(isinstance(n, bool) or not isinstance(n, int) for n in (*whole, stage.ring))
            or min(whole) < 1
            or stage.ring < 0
        ):
            raise ValueError(
                f"size, resolution and views of a stage are ints of at least 1, ring of at least 0, got {stage}"
            )
        if not 0 < stage.share <= 1:
            raise ValueError(f"share of a stage is a fraction of the steps in (0, 1], got {stage}")
    if not stages:
        raise ValueError(
            "stages is empty; give at least one, such as Stage(size=32, resolution=32, share=1.0, views=4)"
        )


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
    stages: Sequence[Stage] = STAGES,
    lr: float = LEARNING_RATE,
    regularisers=None,
    cameras: Sequence[Camera] | None = None,
    faithful: Mapping[str, float] | None = None,
    field: Field | None = None,
) -> SceneRun:
    """A run of a method on a scene, one object, ready to iterate or `finish()`.

    prompt: of the prior; None for a prior of new views, which is asked by the picture `view` (and
    then the scene must show that too, with weights `faithful`, {"rgb": ..., "mask": ...}). seed: of
    e* and all draws. steps: optimisation steps.
    refresh: hold each target for so many steps, 4 by default, 8 for a joint prior. stages: coarse
    to fine. lr: of Adam on the grid. regularisers: weights by name, see
    `dsd_lab.scene.regularisation`. cameras: the views to optimise; the prior's own bank by default.
    field: a new grid, unless given; a `HashField` is at home on a GPU and knows no resolutions.
    Raises TypeError or ValueError for what cannot be.
    """
    if not isinstance(method, Method):
        raise TypeError(f"method must be a method object such as dsd_lab.DSD(), got {method!r}")
    if isinstance(method, (DSDStar, DDS)):
        raise ValueError(f"{method.name} is for pictures: a scene cannot take its x from the prior")
    if refresh is None:
        refresh = JOINT_REFRESH if prior.views_per_item > 1 else REFRESH
    for name, value in (("steps", steps), ("refresh", refresh)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, one object a run, got {seed!r}")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be positive and finite, got {lr}")
    check_stages(stages)
    if faithful and view is None:
        raise ValueError("faithful weighs how well a scene shows its picture, and there is none")
    for name, weight in (faithful or {}).items():
        if name not in FAITHFUL or not 0 <= weight < float("inf"):
            raise ValueError(
                f"faithful holds weights of at least 0 for {', '.join(FAITHFUL)}, got {name}: {weight!r}"
            )
    if len(prior.shape) != 3:
        raise TypeError(
            f"a scene needs a prior of pictures; {prior.name} has items of shape {prior.shape}"
        )
    if prior.asked_by == "picture":
        if not isinstance(view, InputView):
            raise TypeError(
                f"{prior.name} is asked by a picture: use image_to_3d, or give view=input_view(image)"
            )
        asked = {"image": view}
    else:
        if view is not None:
            raise TypeError(
                f"{prior.name} is asked by a prompt: use text_to_3d, or a prior of new views such as "
                '"toybox-novel-view"'
            )
        asked = {"prompt": prior.resolve(prompt), "negative": negative}
    return SceneRun(
        prior,
        asked,
        method,
        seed,
        steps,
        refresh,
        stages,
        lr,
        regularisers,
        cameras,
        view,
        faithful,
        field,
    )
