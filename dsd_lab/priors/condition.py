"""What a prior is asked for: prompts or a picture, and the cameras it is seen from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cameras import Camera, check_cameras, nearest
from ..inputs import InputView

if TYPE_CHECKING:
    from .base import Prior

Texts = str | Sequence[str]
Cameras = Camera | Sequence[Camera] | None
Parts = tuple | None


@dataclass(frozen=True)
class Condition:
    """What the prior is asked for: one prompt (and negative, and camera) for the whole batch, or
    one an item.

    prompt: None where a picture, `view`, stands in its place, for priors of new views: one for the
    whole batch. Made by `Prior.condition`, which sees to it that all that is there is equally long.
    """

    prompt: tuple[str, ...] | None = None
    negative: tuple[str, ...] | None = None
    camera: tuple[Camera, ...] | None = None
    view: InputView | None = None

    def __len__(self) -> int:
        return len(self.camera if self.prompt is None else self.prompt)

    @property
    def base(self) -> str:
        """The term that guidance starts from: "negative" with a negative prompt, else "uncond"."""
        return "uncond" if self.negative is None else "negative"

    def subjects(self, term: str = "cond") -> tuple[Hashable, ...]:
        """What a term is about, an entry an item: a prompt, the picture, or None for everything.

        Raises ValueError for a term that there is not.
        """
        if term in ("uncond", "degraded"):
            return (None,) * len(self)
        if term == "cond":
            return (self.view,) * len(self) if self.prompt is None else self.prompt
        if term == "negative" and self.negative is not None:
            return self.negative
        raise ValueError(
            f'no term "{term}" here; allowed: uncond, cond, degraded, and negative if the '
            "condition has one"
        )

    def expand(self, items: int) -> Condition:
        """The condition with an entry an item. Raises ValueError for another number of them."""
        if len(self) == items:
            return self
        if len(self) != 1:
            raise ValueError(
                f"the condition has {len(self)} prompts for a batch of {items}; give 1 or {items}"
            )
        return self._each(lambda part: part * items)

    def repeat(self, times: int) -> Condition:
        """The condition of the batch laid `times` times one after the other."""
        return self if len(self) == 1 else self.select(list(range(len(self))) * times)

    def select(self, items: Sequence[int]) -> Condition:
        """The condition of some items of the batch, in that order."""
        if len(self) == 1:
            return self
        return self._each(lambda part: tuple(part[i] for i in items))

    def _each(self, change: Callable[[tuple], tuple]) -> Condition:
        parts = (self.prompt, self.negative, self.camera)
        return Condition(*(None if part is None else change(part) for part in parts), self.view)


def resolved(prior: Prior, texts: Texts | None) -> tuple[str, ...] | None:
    """The prior's own names of one prompt or of several."""
    if texts is None:
        return None
    return tuple(prior.resolve(text) for text in ([texts] if isinstance(texts, str) else texts))


def agreed(prompts: Parts, negatives: Parts, cameras: Parts) -> Condition:
    """The condition of parts of one entry or one an item. Raises ValueError where they disagree."""
    parts = {"prompts": prompts, "negatives": negatives, "cameras": cameras}
    longest = max(len(part) for part in parts.values() if part)
    for name, part in parts.items():
        if part and len(part) not in (1, longest):
            raise ValueError(f"{len(part)} {name} for {longest} items; give one, or one an item")
    return Condition(
        *(part * longest if part and len(part) == 1 else part for part in parts.values())
    )


def chosen_cameras(prior: Prior, camera: Cameras) -> tuple[Camera, ...] | None:
    """The cameras of a condition. Raises ValueError for those that the prior does not know."""
    if camera is None and prior.cameras is None:
        return None
    if camera is None or prior.cameras is None:
        wants = "needs a camera" if camera is None else "takes no camera"
        raise ValueError(f"{prior.name} {wants}: condition(prompt, camera=...)")
    cameras = check_cameras([camera] if isinstance(camera, Camera) else camera)
    unknown = () if prior.cameras == "any" else [c for c in cameras if c not in prior.cameras]
    for one in unknown:
        raise ValueError(
            f"{prior.name} knows {len(prior.cameras)} cameras and {one} is not one of them; the "
            f"nearest is {prior.cameras[nearest(one, prior.cameras)]} (prior.cameras lists them)"
        )
    return cameras
