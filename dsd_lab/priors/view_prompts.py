"""Views for priors that only read text: the camera is told in words, and Perp-Neg keeps the front
out of the other views.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..cameras import Camera
from .base import Prediction, Prior, Query
from .condition import Condition
from .memory import Memory
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

        |azimuth| < 90:  q = 1 - |azimuth| / 90,  q front + (1 - q) side
                         front -f(q), side -f(1 - q);  A = 4, C = -2.426 for both
        else:            q = 2 - |azimuth| / 90,  q side + (1 - q) back
                         side -f(q), A = 1, C = -0.606;  front -f(q), A = 1, C = 0.967
        f(r) = A exp(-r / 2) + C

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
    return e - per_item(share, e) * along


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """Values (B,), shaped to multiply a batch."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


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
                "ViewPrompts is for a pipeline that reads text and knows no cameras, "
                f"got {inner.name}"
            )
        super().__init__(inner.shape, inner.schedule, inner.count)
        self.inner, self.perp_neg, self.image_shape = inner, perp_neg, inner.image_shape
        self.name, self.world, self.prompts = inner.name, inner.world, inner.prompts
        self.dtype, self.path_spacing, self.unet = inner.dtype, inner.path_spacing, inner.unet

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def preferred_batch(self) -> int:
        return self.inner.preferred_batch

    def to(self, device: str | torch.device) -> ViewPrompts:
        """Moves the pipeline, and returns the prior."""
        self.inner.to(device)
        return self

    def economise(self, memory: Memory) -> None:
        """As the pipeline."""
        self.inner.economise(memory)

    def resolve(self, prompt: str) -> str:
        return self.inner.resolve(prompt)

    def condition(self, prompt, negative=None, camera=None) -> Condition:
        """As any prior's, with a camera; also raises ValueError where the words for a view are
        unknown or too many.
        """
        cond = super().condition(prompt, negative, camera)
        for prompt in dict.fromkeys(cond.prompt):
            for words in (FRONT, SIDE, BACK, OVERHEAD):
                self.inner.resolve(prompt + words)
        return cond

    def encode(self, images: Tensor) -> Tensor:
        """As the pipeline's."""
        return self.inner.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        """As the pipeline's."""
        return self.inner.decode(x)

    def cost(self, terms, base="uncond"):
        more = 2 + (base not in terms) if self.perp_neg and "cond" in terms else 0
        return len(terms) + more

    def _outputs(self, queries):
        questions = [self._in_words(query) for query in queries]
        every = [question for of_query in questions for question in of_query]
        answers = iter(self.inner.predict_many(every, counted=False))
        self.inner.embeddings.forget_blends()  # cameras drawn afresh make new ones at each step
        return [
            self._combined(query, [next(answers) for _ in of_query])
            for query, of_query in zip(queries, questions, strict=True)
        ]

    def _in_words(self, query: Query) -> list[Query]:
        """What the pipeline is asked for a query; with Perp-Neg also the two negative texts."""
        cond = query.cond.expand(len(query.x))

        def told(texts: Iterable[str]) -> Condition:
            return Condition(tuple(texts), cond.negative)

        def with_words(words: Iterable[str]) -> list[str]:
            return [prompt + word for prompt, word in zip(cond.prompt, words, strict=True)]

        if not self.perp_neg or "cond" not in query.terms:
            return [query._replace(cond=told(with_words(map(view_text, cond.camera))))]
        parts = [perp_neg_parts(camera) for camera in cond.camera]
        blends = [
            self.inner.blend({prompt + words: share for words, share in positive.items()})
            for prompt, (positive, _) in zip(cond.prompt, parts, strict=True)
        ]
        terms = tuple(dict.fromkeys((*query.terms, cond.base)))
        return [query._replace(cond=told(blends), terms=terms)] + [
            query._replace(
                cond=told(with_words(negatives[i][0] for _, negatives in parts)), terms=("cond",)
            )
            for i in range(2)
        ]

    def _combined(
        self, query: Query, answers: Sequence[dict[str, Prediction]]
    ) -> dict[str, Tensor]:
        """The terms of a query from what the pipeline said to its questions."""
        positive, *negatives = answers
        outputs = {term: prediction.output for term, prediction in positive.items()}
        if negatives:
            base = outputs[query.cond.base]
            e_pos = outputs["cond"] - base
            parts = [perp_neg_parts(camera)[1] for camera in query.cond.camera]
            for i, negative in enumerate(negatives):
                weight = torch.tensor([of_item[i][1] for of_item in parts]).to(base)
                e_i = perpendicular(negative["cond"].output - base, e_pos)
                outputs["cond"] = outputs["cond"] + per_item(weight, e_i) * e_i
        return {term: outputs[term] for term in query.terms}
