"""Exact priors: the optimal denoiser of a known distribution, in closed form, see `components`."""

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..checks import did_you_mean, meant
from ..schedule import NoiseSchedule
from ..worlds.pictures import PictureWorld
from .base import Count, Prior, Query
from .components import Components
from .condition import Condition
from .space import InPictureSpace, PictureSpace


class ExactPrior(Prior):
    """The optimal denoiser of known components; a condition leaves some of them, or all at other
    weights.

    Its term "degraded" stands for what a text prior is told to avoid ("blurry, low quality"):
    everything, made worse. What it holds follows the device of x.
    """

    def __init__(
        self, shape: tuple[int, ...], schedule: NoiseSchedule | None, count: Count | None = None
    ):
        # its native output is E[x0]: eps then follows without dividing by a small alpha
        base = schedule or NoiseSchedule.stable_diffusion()
        super().__init__(shape, replace(base, prediction_type="sample"), count)

    @abstractmethod
    def _leaves(self, subject: Hashable) -> Tensor:
        """log of what a subject leaves of each component's weight, up to a constant: 0 all, -inf
        nothing; (N,).
        """

    @abstractmethod
    def _shares(
        self, queries: Sequence[Query], x: Tensor, t: Tensor
    ) -> Iterator[tuple[Components, list[int], Tensor]]:
        """Which of the items x (M, D) have the same components: those, the items' positions, and
        their logits.
        """

    def members(self, prompt: str) -> Tensor:
        """Which components a prompt's distribution holds: int64 positions (n,)."""
        return self._leaves(self.resolve(prompt)).isfinite().nonzero()[:, 0]

    def _chosen(self, subjects: Sequence[Hashable]) -> tuple[Tensor, Tensor | None] | None:
        """What `Components.posterior_mean` takes as `chosen`, for items with these subjects."""
        if set(subjects) == {None}:
            return None
        rows = subjects[:1] if len(set(subjects)) == 1 else subjects
        given = torch.stack([self._leaves(subject) for subject in rows])
        columns = given.isfinite().any(0).nonzero()[:, 0]
        given = given[:, columns]
        return columns, given if bool(given.any()) else None

    def _outputs(self, queries: Sequence[Query]) -> list[dict[str, Tensor]]:
        # x . y_i is the cost: it is taken once for all queries and terms of an item, and each
        # term's mean once for all queries
        x = torch.cat([query.x for query in queries]).flatten(1)
        t = torch.cat([query.t for query in queries])
        rows = torch.arange(len(x)).split([len(query.x) for query in queries])
        subjects: dict[str, dict[int, Hashable]] = {}  # of a term, those of the items that need it
        for query, own in zip(queries, rows, strict=True):
            for term in query.terms:
                of_items = zip(own.tolist(), query.cond.subjects(term), strict=True)
                subjects.setdefault(term, {}).update(of_items)
        means = {term: torch.empty_like(x) for term in subjects}
        for components, items, logits in self._shares(queries, x, t):
            for term, of_items in subjects.items():
                places = [k for k, item in enumerate(items) if item in of_items]
                some = [items[k] for k in places]
                if some:
                    about = [of_items[item] for item in some]
                    means[term][some] = self._means(
                        components, term, x[some], t[some], logits[places], about
                    )
        return [
            {term: means[term][own].reshape(query.x.shape) for term in query.terms}
            for query, own in zip(queries, rows, strict=True)
        ]

    def _means(
        self,
        components: Components,
        term: str,
        x: Tensor,
        t: Tensor,
        logits: Tensor,
        subjects: Sequence[Hashable],
    ) -> Tensor:
        """E[x0 | x_t] of x (M, D) for a term: (M, D)."""
        if term == "degraded":
            components = components.degraded
            logits = components.logits(x, t, self.schedule)
        return components.posterior_mean(x, t, logits, self.schedule, self._chosen(subjects))


class LabelledPrior(ExactPrior):
    """The exact prior of components that have one label each, which is their prompt.

    components: all of them, which are the unconditional distribution; label (N,) int64: which of
    `prompts` a component belongs to.
    """

    def __init__(
        self,
        components: Components,
        label: Tensor,
        prompts: Sequence[str],
        shape: tuple[int, ...],
        schedule: NoiseSchedule | None = None,
    ):
        super().__init__(shape, schedule)
        self.components, self.label, self.prompts = components, label, tuple(prompts)
        self.means, self.width = components.means, components.width

    def _leaves(self, subject):
        inside = self.label == self.prompts.index(subject)
        return torch.zeros(len(inside)).masked_fill(~inside, -torch.inf)

    def _shares(self, queries, x, t):
        yield self.components, list(range(len(x))), self.components.logits(x, t, self.schedule)

    def log_density(self, x: Tensor, t: int | Tensor, cond: Condition | None = None) -> Tensor:
        """log p_t(x_t), of the condition or (None) of everything: (B,). Its gradient is -eps /
        sigma.
        """
        t = self.schedule.check(t).expand(len(x))
        logits = self.components.log_probs(x.flatten(1), t, self.schedule)
        weight = self.components.log_weight.to(x.dtype).to(x.device)[None]
        if cond is not None:
            columns, given = self._chosen(cond.expand(len(x)).subjects())
            columns, given = columns.to(x.device), 0 if given is None else given.to(x)
            logits, weight = logits[:, columns] + given, weight[:, columns] + given
        return logits.logsumexp(1) - weight.logsumexp(1)


class GaussianMixture(LabelledPrior):
    """A mixture of isotropic Gaussians in D dimensions, labelled; the first prior of the course, in
    2-D.

    means: {label: (n, D) centres}; width: one standard deviation, or {label: (n,)}; weights:
    {label: (n,)} relative weights (equal by default). Raises ValueError for centres of mixed
    dimension or a negative width or weight.
    """

    preferred_batch = 4096
    name = "gaussian-mixture"

    def __init__(
        self,
        means: Mapping[str, Tensor | Sequence[Sequence[float]]],
        width: float | Mapping[str, Sequence[float]] = 0.1,
        weights: Mapping[str, Sequence[float]] | None = None,
        schedule: NoiseSchedule | None = None,
    ):
        centres = {label: exactly(value) for label, value in means.items()}
        if not all(c.ndim == 2 and len(c) for c in centres.values()) or (
            len({c.shape[1] for c in centres.values()}) != 1
        ):
            raise ValueError(
                "means must map each label to centres (n, D) with n >= 1 and one D for all"
            )

        def of_each(table):
            parts = [exactly(table[label]).expand(len(c)) for label, c in centres.items()]
            return torch.cat(parts)

        width = torch.tensor(float(width)) if isinstance(width, (int, float)) else of_each(width)
        weight = of_each(weights or dict.fromkeys(centres, 1.0))
        if bool((width < 0).any()) or bool((weight <= 0).any()):
            raise ValueError("widths must be >= 0 and weights > 0")
        every = torch.cat(list(centres.values()))
        log_weight = (weight / weight.sum()).log()
        label = torch.cat([torch.full((len(c),), k) for k, c in enumerate(centres.values())])
        components = Components(
            every, width, log_weight, lambda: Components(every, 2 * components.width, log_weight)
        )
        super().__init__(components, label, tuple(centres), (every.shape[1],), schedule)

    def resolve(self, prompt: str) -> str:
        label = meant(prompt, self.prompts)
        if label is None:
            hint = did_you_mean(prompt, self.prompts, 0)
            raise ValueError(f'unknown label "{prompt}";{hint} (labels: {", ".join(self.prompts)})')
        return label


def exactly(values) -> Tensor:
    """Numbers as a float64 tensor on the CPU."""
    values = values.cpu() if isinstance(values, Tensor) else values
    return torch.as_tensor(values, dtype=torch.float64)


class ImageSet(InPictureSpace, LabelledPrior):
    """The exact prior of a world's pictures: x = scale (2 image - 1 - mean picture), shape (3, H,
    W).

    world: a `PictureWorld`; scale: a positive number, `picture_scale` of the size by default.
    """

    preferred_batch = 256

    def __init__(
        self, world: PictureWorld, scale: float | None = None, schedule: NoiseSchedule | None = None
    ):
        pixels = world.pixels.double() / 127.5 - 1
        self.world, self.name = world, world.name
        self.space = space = PictureSpace(pixels.mean(0), scale)
        means = space.of_pixels(pixels).flatten(1)
        components = Components(means, worse=lambda: Components(space.blurred(means)))
        super().__init__(components, world.label, world.prompts, space.shape, schedule)
