"""What a diffusion prior is: it predicts noise, on conditions; guidance combines its predictions,
once for all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..cameras import Camera, check_cameras, nearest
from ..draws import starting_noise
from ..inputs import InputView
from ..schedule import NoiseSchedule


@dataclass(frozen=True)
class Condition:
    """What the prior is asked for: one prompt (and negative, and camera) for the whole batch, or
    one an item.

    view: a picture in the prompt's place, for priors of new views; one for the whole batch.
    Made by `Prior.condition`, which sees to it that all that is there is equally long.
    """

    prompt: tuple[str, ...]
    negative: tuple[str, ...] | None = None
    camera: tuple[Camera, ...] | None = None
    view: InputView | None = None

    def __len__(self) -> int:
        return len(self.prompt)

    def repeat(self, times: int) -> Condition:
        """The condition of the batch laid `times` times one after the other."""
        return self if len(self) == 1 else self.select(list(range(len(self))) * times)

    def select(self, items: Sequence[int]) -> Condition:
        """The condition of some items of the batch, in that order."""
        if len(self) == 1:
            return self
        parts = (self.prompt, self.negative, self.camera)
        return Condition(*(part and tuple(part[i] for i in items) for part in parts), self.view)


@dataclass(frozen=True, eq=False)
class Prediction:
    """One reading of x_t at t: the noise in it, `eps`, and the clean x0 behind it, each (B,
    *shape), made when asked for.

    output: what the network says, natively (eps, v or x0). Which, the schedule knows.
    """

    output: Tensor
    x_t: Tensor
    t: Tensor
    schedule: NoiseSchedule

    @cached_property
    def eps(self) -> Tensor:
        return self.schedule.to_eps(self.output, self.x_t, self.t)

    @cached_property
    def x0(self) -> Tensor:
        return self.schedule.to_x0(self.output, self.x_t, self.t)


class Query(NamedTuple):
    """A question to the prior: x (B, *shape) at t (int or (B,)), on a condition, for some terms."""

    x: Tensor
    t: int | Tensor
    cond: Condition
    terms: tuple[str, ...] = ("uncond", "cond")


def check_cfg(cfg: float) -> float:
    """`cfg` as a float. Raises TypeError or ValueError unless it is a finite number."""
    if isinstance(cfg, bool) or not isinstance(cfg, (int, float)):
        raise TypeError(f"cfg must be a number such as 7.5, got {cfg!r}")
    if not math.isfinite(cfg):
        raise ValueError(f"cfg must be finite (1 means no guidance, 7.5 is common), got {cfg}")
    return float(cfg)


def guidance_terms(cfg: float, cond: Condition | None = None) -> tuple[str, ...]:
    """The terms that guidance at `cfg` needs: at cfg 1 the conditional one alone."""
    base = "negative" if cond is not None and cond.negative else "uncond"
    return ("cond",) if check_cfg(cfg) == 1 else (base, "cond")


def guide(terms: dict[str, Prediction], cfg: float) -> Prediction:
    """Classifier-free guidance: e_g = e_u + cfg (e_c - e_u), and the same for x0.

    It combines native outputs: eps and x0 are affine in them, so it is the same and is done once.
    With a negative prompt, its prediction stands in e_u's place, as in diffusers. cfg = s + 1 where
    a text writes e_c + s (e_c - e_u). Source: arXiv 2207.12598.
    """
    if cfg == 1:
        return terms["cond"]
    base = terms["negative"] if "negative" in terms else terms["uncond"]
    return replace(base, output=torch.lerp(base.output, terms["cond"].output, cfg))


@dataclass
class Count:
    """How many items were put through a network; smaller copies of a prior count on the same."""

    items: int = 0


class Prior(ABC):
    """A diffusion model of items of shape `shape`, in the prior's own space.

    name: how it was asked for. schedule: its `NoiseSchedule`. evaluations: items put through the
    network so far (a guided prediction of one item counts two). preferred_batch: how many items a
    call handles well. path_spacing: timesteps between the levels of an ODE path on which DSD can
    follow it.
    world: what it knows, or was trained on, if that is known: pictures or objects under prompts.
    cameras: None, a fixed bank, or "any". views_per_item: 1, or how many views it denoises jointly.
    asked_by: "prompt" or "picture". image_shape: of the pictures that `encode` takes. unit: how far x
    moves when a pixel goes from black to white. unet: its network, if it has one.
    """

    name: str = "prior"
    prompts: tuple[str, ...] = ()
    world = None
    cameras = None
    asked_by = "prompt"
    views_per_item = 1
    preferred_batch = 16
    path_spacing = 100
    unit = 2.0
    unet: nn.Module | None = None
    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, shape: tuple[int, ...], schedule: NoiseSchedule):
        self.shape, self.schedule, self._count = tuple(shape), schedule, Count()
        self.image_shape = self.shape

    @property
    def evaluations(self) -> int:
        return self._count.items

    @evaluations.setter
    def evaluations(self, items: int) -> None:
        self._count.items = items

    def identity(self) -> dict[str, object]:
        """What tells this prior from others, for those who keep results: anything JSON can hold."""
        return {"prior": self.name, "shape": self.shape}

    def fitting_size(self, size: int) -> int:
        """The largest side up to `size` of pictures that `at_size` can make."""
        return size

    def at_size(self, size: int) -> Prior:
        """The prior of the same in pictures of another side. A network has one size: it is itself,
        and larger or smaller pictures are resized to `image_shape`.
        """
        return self

    @abstractmethod
    def resolve(self, prompt: str) -> str:
        """The prior's own name of a prompt. Raises ValueError with the nearest one if it has none."""

    @abstractmethod
    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        """The native output for each query and term, from one call of the network. t is a (B,)
        tensor here.
        """

    def encode(self, images: Tensor) -> Tensor:
        raise TypeError(f"{self.name} is a prior of points, not of pictures: it has no encode")

    def decode(self, x: Tensor) -> Tensor:
        raise TypeError(f"{self.name} is a prior of points, not of pictures: it has no decode")

    def condition(
        self,
        prompt: str | Sequence[str],
        negative: str | Sequence[str] | None = None,
        camera: Camera | Sequence[Camera] | None = None,
    ) -> Condition:
        """The condition for a prompt, or for one prompt an item; likewise its negative, and the
        camera it is seen from.

        Raises ValueError for an unknown prompt, or a camera that the prior does not know.
        """
        parts = {
            "prompts": self._resolved(prompt),
            "negatives": None if negative is None else self._resolved(negative),
            "cameras": self._seen_from(camera),
        }
        longest = max(len(part) for part in parts.values() if part)
        for name, part in parts.items():
            if part and len(part) not in (1, longest):
                raise ValueError(
                    f"{len(part)} {name} for {longest} items; give one, or one an item"
                )
        return Condition(
            *(part and (part * longest if len(part) == 1 else part) for part in parts.values())
        )

    def _seen_from(self, camera: Camera | Sequence[Camera] | None) -> tuple[Camera, ...] | None:
        if camera is None and self.cameras is None:
            return None
        if camera is None or self.cameras is None:
            wants = "needs a camera" if camera is None else "takes no camera"
            raise ValueError(f"{self.name} {wants}: condition(prompt, camera=...)")
        cameras = check_cameras([camera] if isinstance(camera, Camera) else camera)
        if self.cameras != "any":
            for one in cameras:
                if one not in self.cameras:
                    raise ValueError(
                        f"{self.name} knows {len(self.cameras)} cameras and {one} is not one of them; "
                        f"the nearest is {self.cameras[nearest(one, self.cameras)]} (prior.cameras lists them)"
                    )
        return cameras

    def _resolved(self, prompt: str | Sequence[str]) -> tuple[str, ...]:
        return tuple(self.resolve(p) for p in ([prompt] if isinstance(prompt, str) else prompt))

    def noise(self, seeds: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """The starting noise e* of each seed: (B, *shape)."""
        return starting_noise(seeds, self.shape, dtype or self.dtype, self.device)

    def predict_many(self, queries: Sequence[Query]) -> list[dict[str, Prediction]]:
        """Several queries in one call of the network: for each, its terms' predictions.

        Raises ValueError for a wrong shape, dtype or timestep.
        """
        queries = [query._replace(t=self._batched_t(query)) for query in queries]
        self.evaluations += sum(len(query.x) * len(query.terms) for query in queries)
        return [
            {
                term: Prediction(output, query.x, query.t, self.schedule)
                for term, output in outputs.items()
            }
            for query, outputs in zip(queries, self._outputs(queries), strict=True)
        ]

    def predict(
        self,
        x: Tensor,
        t: int | Tensor,
        cond: Condition,
        terms: tuple[str, ...] = ("uncond", "cond"),
    ):
        """The predictions of some terms at (x, t): dict of `Prediction`s."""
        return self.predict_many([Query(x, t, cond, terms)])[0]

    def predict_guided(
        self, x: Tensor, t: int | Tensor, cond: Condition, cfg: float = 1.0
    ) -> Prediction:
        """The guided prediction at (x, t): eps and x0, each (B, *shape)."""
        return guide(self.predict(x, t, cond, guidance_terms(cfg, cond)), cfg)

    def predict_noise(
        self, x: Tensor, t: int | Tensor, cond: Condition, cfg: float = 1.0
    ) -> Tensor:
        """The guided noise prediction e_g(x, t): (B, *shape)."""
        return self.predict_guided(x, t, cond, cfg).eps

    def _batched_t(self, query: Query) -> Tensor:
        x, batch = query.x, len(query.x)
        if tuple(x.shape[1:]) != self.shape or batch == 0:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
        if not x.dtype.is_floating_point:
            raise ValueError(f"x must be a floating-point tensor, got {x.dtype}")
        if len(query.cond) not in (1, batch):
            raise ValueError(
                f"the condition has {len(query.cond)} prompts for a batch of {batch}; give 1 or {batch}"
            )
        t = self.schedule.check(query.t)
        if t.ndim and len(t) not in (1, batch):
            raise ValueError(
                f"t has {len(t)} entries for a batch of {batch}; give an int or {batch} of them"
            )
        return t.expand(batch)
