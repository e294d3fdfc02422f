"""What a diffusion prior is: it predicts noise, on conditions; guidance combines its predictions,
once for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..cameras import Camera
from ..checks import batch_of, number
from ..draws import starting_noise
from ..schedule import NoiseSchedule
from ..shapes import Batch
from ..threads import one_thread
from ..worlds import World
from .condition import Cameras, Condition, Texts, agreed, chosen_cameras, resolved
from .device import pick_device
from .memory import Memory


@dataclass(frozen=True, eq=False)
class Prediction:
    """One reading of x_t at t: the noise in it, and the clean x0 behind it, made when needed.

    output: what the network says, natively (eps, v or x0). Which, the schedule knows.
    """

    output: Tensor
    x_t: Tensor
    t: Tensor
    schedule: NoiseSchedule

    @cached_property
    def eps(self) -> Tensor:
        """The noise in x_t: (B, *shape)."""
        return self.schedule.to_eps(self.output, self.x_t, self.t)

    @cached_property
    def x0(self) -> Tensor:
        """The clean item behind x_t: (B, *shape)."""
        return self.schedule.to_x0(self.output, self.x_t, self.t)


Time = int | Tensor
TERMS = ("uncond", "cond")


class Query(NamedTuple):
    """A question to the prior: x (B, *shape) at t (int or (B,)), on a condition, for some terms."""

    x: Tensor
    t: Time
    cond: Condition
    terms: tuple[str, ...] = TERMS


def check_cfg(cfg: float) -> float:
    """`cfg` as a float. Raises TypeError or ValueError unless it is a finite number."""
    return number("cfg", cfg, "7.5 (1 means no guidance)")


def guidance_terms(cfg: float, cond: Condition | None = None) -> tuple[str, ...]:
    """The terms that guidance at `cfg` needs: at cfg 1 the conditional one alone."""
    base = "uncond" if cond is None else cond.base
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
    """How many items were put through a network; what wraps or resizes a prior counts on its."""

    items: int = 0


class Prior(ABC):
    """A diffusion model of items of shape `shape`, in the prior's own space.

    name: as given to `load_prior`. evaluations: items put through the network so far (a guided
    prediction of one item counts two). preferred_batch: how many items a call handles well.
    path_spacing: timesteps between the levels of an ODE path on which DSD can follow it. cameras:
    None, a fixed bank, or "any". views_per_item: 1, or how many views it denoises jointly.
    all_at_once: whether these are all of a scene's; else sets in a row, each at one t. asked_by:
    "prompt" or "picture". world: of its pictures, if known. image_shape: of the pictures that
    `encode` takes. unit: how far x moves when a pixel goes from black to white (2 for latents too,
    which spread about like pixels in [-1, 1]). unet: its network, if any. device: where it is.
    """

    name: str = "prior"
    prompts: tuple[str, ...] = ()
    world: World | None = None
    cameras: tuple[Camera, ...] | str | None = None
    asked_by = "prompt"
    views_per_item, all_at_once = 1, False
    preferred_batch, path_spacing = 16, 100
    unit = 2.0
    unet: nn.Module | None = None
    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, shape: tuple[int, ...], schedule: NoiseSchedule, count: Count | None = None):
        self.shape, self.schedule = tuple(shape), schedule
        self.image_shape = self.shape
        self.count = Count() if count is None else count

    @property
    def evaluations(self) -> int:
        return self.count.items

    @abstractmethod
    def resolve(self, prompt: str) -> str:
        """The prior's name of a prompt. Raises ValueError with the nearest one if it has none."""

    @abstractmethod
    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        """The native output for each query and term, from one call of the network. Each query has
        its t, (B,) on the CPU, and its condition's B entries.
        """

    def identity(self) -> dict[str, object]:
        """What tells this prior from others, for those who keep results: anything JSON can hold."""
        return {"prior": self.name, "shape": self.shape}

    def fitting_size(self, size: int) -> int:
        """The largest side up to `size` of pictures that `at_size` can make."""
        return size

    def at_size(self, size: int) -> Prior:
        """The prior of the same in pictures of another side; a network, which has one, resizes."""
        return self

    def economise(self, memory: Memory) -> None:  # an exact prior has nothing to do
        """Fit into so much memory from now on."""

    def to(self, device: str | torch.device) -> Prior:
        """The prior on another device, sharing what it holds. Raises ValueError for none there."""
        if (device := pick_device(device)) == self.device:
            return self
        moved = copy(self)
        moved.device = device
        return moved

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, *image_shape) in [0, 1] to x (B, *shape). Raises TypeError for points."""
        raise TypeError(f"{self.name} is a prior of points, not of pictures: it has no encode")

    def decode(self, x: Tensor) -> Tensor:
        """x (B, *shape) to pictures (B, *image_shape) in [0, 1]. Raises TypeError for points."""
        raise TypeError(f"{self.name} is a prior of points, not of pictures: it has no decode")

    def condition(
        self, prompt: Texts, negative: Texts | None = None, camera: Cameras = None
    ) -> Condition:
        """The condition for a prompt, or for one an item; likewise its negative, and the camera it
        is seen from. Raises ValueError for a prompt or a camera that the prior does not know.
        """
        return agreed(
            resolved(self, prompt), resolved(self, negative), chosen_cameras(self, camera)
        )

    def cost(self, terms: Sequence[str], base: str = "uncond") -> int:
        """How many predictions some terms of one item take, where guidance starts from `base`."""
        return len(terms)

    def noise(self, seeds: Sequence[int], dtype: torch.dtype | None = None) -> Batch:
        """The starting noise e* of each seed: (B, *shape)."""
        return starting_noise(seeds, self.shape, dtype or self.dtype, self.device)

    def predict_many(self, queries: Sequence[Query], counted=True) -> list[dict[str, Prediction]]:
        """For each of several queries its terms' predictions, from one call of the network.

        counted: among `evaluations`; a training pass is not. Raises ValueError for a wrong shape,
        dtype or timestep.
        """
        queries = [checked(query, self) for query in queries]
        with one_thread(self.unet):
            outputs = self._outputs(queries)
        costs = (len(query.x) * self.cost(query.terms, query.cond.base) for query in queries)
        self.count.items += counted * sum(costs)
        return [
            {term: Prediction(o, query.x, query.t, self.schedule) for term, o in of_query.items()}
            for query, of_query in zip(queries, outputs, strict=True)
        ]

    def predict(self, x: Batch, t: Time, cond: Condition, terms=TERMS) -> dict[str, Prediction]:
        """The predictions of some terms at (x, t)."""
        return self.predict_many([Query(x, t, cond, terms)])[0]

    def predict_guided(self, x: Batch, t: Time, cond: Condition, cfg: float = 1.0) -> Prediction:
        """The guided prediction at (x, t): eps and x0, each (B, *shape)."""
        return guide(self.predict(x, t, cond, guidance_terms(cfg, cond)), cfg)

    def predict_noise(self, x: Batch, t: Time, cond: Condition, cfg: float = 1.0) -> Batch:
        """The guided noise prediction e_g(x, t): (B, *shape)."""
        return self.predict_guided(x, t, cond, cfg).eps


def checked(query: Query, prior: Prior) -> Query:
    """The query with a t, on the CPU, and an entry of the condition for each item. Raises
    ValueError for what does not fit the prior.
    """
    x = query.x
    batch_of(prior.shape, "x", x)
    if len(x) == 0:
        raise ValueError("x has no items: give at least one")
    if not x.dtype.is_floating_point:
        raise ValueError(f"x must be a floating-point tensor, got {x.dtype}")
    t = prior.schedule.check(query.t).cpu()
    if t.ndim and len(t) not in (1, len(x)):
        raise ValueError(
            f"t has {len(t)} entries for a batch of {len(x)}; give an int or {len(x)} of them"
        )
    return query._replace(t=t.expand(len(x)), cond=query.cond.expand(len(x)))
