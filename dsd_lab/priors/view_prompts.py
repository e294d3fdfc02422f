"""Views for priors that only read text: the camera is told in words, and Perp-Neg keeps the front
out of the other views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..cameras import Camera
from .base import Condition, Prior, Query
from .pipeline import PipelinePrior

FRONT, SIDE, BACK, OVERHEAD = ", front view", ", side view", ", back view", ", overhead view"


def view_text(camera: Camera) -> str:
    """What is added to a prompt for a camera: the front is |azimuth| < 45 degrees, the back > 135,
    overhead above 60.

    Source: DreamFusion (arXiv 2209.14988), section 3.2, with the limits of common implementations.
    """
    if camera.elevation > 60:
        return OVERHEAD
    return FRONT if abs(camera.azimuth) < 45 else BACK if abs(camera.azimuth) > 135 else SIDE


def perp_neg_parts(camera: Camera) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Perp-Neg's positive text, as shares of two texts, and its two negative texts with their
    weights, for a camera.

        |azimuth| < 90:  q = 1 - |azimuth| / 90;  q front + (1 - q) side;  front -f(q), side -f(1 - q),  f: A = 4, C = -2.426
        else:            q = 2 - |azimuth| / 90;  q side + (1 - q) back;   side -f(q), A = 1, C = -0.606;  front -f(q), A = 1,
                         C = 0.967;                f(r) = A exp(-r / 2) + C

    From above 60 degrees the text is the overhead one and the weights are 0. Source: arXiv
    2304.04968.
    """

    def f(r, a, c):
        return a * math.exp(-0.5 * r) + c

    if camera.elevation > 60:
        return {OVERHEAD: 1.0}, [(FRONT, 0.0), (SIDE, 0.0)]
    turned = abs(camera.azimuth) / 90
    if turned < 1:
        q = 1 - turned
        return {FRONT: q, SIDE: 1 - q}, [(FRONT, -f(q, 4, -2.426)), (SIDE, -f(1 - q, 4, -2.426))]
    q = 2 - turned
    return {SIDE: q, BACK: 1 - q}, [(SIDE, -f(q, 1, -0.606)), (FRONT, -f(q, 1, 0.967))]


def perpendicular(e: Tensor, along: Tensor) -> Tensor:
    """The part of e at right angles to `along`, item by item; both (B, ...)."""
    flat, axis = e.flatten(1), along.flatten(1)
    share = (flat * axis).sum(1) / axis.square().sum(1).clamp(min=1e-6)
    return e - share.reshape(-1, *(1,) * (e.ndim - 1)) * along


class ViewPrompts(Prior):
    """A text prior that is told the camera in words: "a chair, side view". It takes any camera.

    perp_neg: the term "cond" then stands for e_u + e_pos + sum_i w_i perp(e_i), e_pos = e(pos) -
    e_u, e_i = e(neg_i) - e_u, so that guidance, e_u + cfg (e_cond - e_u), is Perp-Neg's formula,
    and cfg 1 keeps its correction. It costs 4 predictions. The sums are taken on native outputs: at
    one (x_t, t) their differences are those of eps times one factor.
    Raises TypeError for a prior that does not read text, or is told its camera already.
    """

    cameras = "any"

    def __init__(self, inner: PipelinePrior, perp_neg: bool = False):
        if not isinstance(inner, PipelinePrior) or inner.cameras is not None:
            raise TypeError(
                f"ViewPrompts is for a pipeline that reads text and knows no cameras, got {inner.name}"
            )
        self.inner, self.perp_neg = inner, perp_neg
        super().__init__(inner.shape, inner.schedule)
        self.name, self.world, self.prompts, self.image_shape = (
            inner.name,
            inner.world,
            inner.prompts,
            inner.image_shape,
        )
        self.dtype, self.device, self.preferred_batch = (
            inner.dtype,
            inner.device,
            inner.preferred_batch,
        )

    @property
    def evaluations(self) -> int:
        return self.inner.evaluations  # the network's own count, which Perp-Neg's extra terms enter

    @evaluations.setter
    def evaluations(self, value: int) -> None:
        pass

    def resolve(self, prompt: str) -> str:
        return self.inner.resolve(prompt)

    def condition(self, prompt, negative=None, camera=None) -> Condition:
        """As any prior's, with a camera; also raises ValueError where the words for a view are
        unknown or too many.
        """
        cond = super().condition(prompt, negative, camera)
        for text in dict.fromkeys(
            p + words for p in cond.prompt for words in (FRONT, SIDE, BACK, OVERHEAD)
        ):
            self.inner.resolve(text)
        return cond

    def encode(self, images: Tensor) -> Tensor:
        """As the pipeline's."""
        return self.inner.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        """As the pipeline's."""
        return self.inner.decode(x)

    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        asked: list[Query] = []
        for query in queries:
            cond, items = query.cond, len(query.x)
            prompts, cameras = (part * (items // len(part)) for part in (cond.prompt, cond.camera))

            def told(texts, cond=cond):
                return Condition(
                    tuple(texts),
                    cond.negative and cond.negative * (len(texts) // len(cond.negative)),
                )

            if not self.perp_neg or "cond" not in query.terms:
                words = told([p + view_text(c) for p, c in zip(prompts, cameras, strict=True)])
                asked.append(query._replace(cond=words))
                continue
            parts = [perp_neg_parts(camera) for camera in cameras]
            blends = [
                self.inner.blend({p + words: share for words, share in own.items()})
                for p, (own, _) in zip(prompts, parts, strict=True)
            ]
            base = "negative" if cond.negative else "uncond"
            asked.append(
                query._replace(cond=told(blends), terms=tuple(dict.fromkeys((*query.terms, base))))
            )
            for i in range(2):
                away = [
                    p + negatives[i][0] for p, (_, negatives) in zip(prompts, parts, strict=True)
                ]
                asked.append(query._replace(cond=told(away), terms=("cond",)))
        answers = iter(self.inner.predict_many(asked))
        outputs = []
        for query in queries:
            own = {term: prediction.output for term, prediction in next(answers).items()}
            if self.perp_neg and "cond" in query.terms:
                base = own["negative" if query.cond.negative else "uncond"]
                e_pos = own["cond"] - base
                cameras = query.cond.camera * (len(query.x) // len(query.cond))
                for i in range(2):
                    weight = torch.tensor(
                        [perp_neg_parts(camera)[1][i][1] for camera in cameras]
                    ).to(base)
                    e_i = next(answers)["cond"].output - base
                    own["cond"] = own["cond"] + weight.reshape(
                        -1, *(1,) * (e_i.ndim - 1)
                    ) * perpendicular(e_i, e_pos)
            outputs.append({term: own[term] for term in query.terms})
        return outputs
