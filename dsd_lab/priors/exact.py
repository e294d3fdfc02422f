"""Exact priors: the optimal denoiser of a known distribution, in closed form.

For x0 ~ sum_i w_i N(y_i, h_i^2 I), the noisy x_t = a x0 + s eps has components N(a y_i, v_i I), v_i
= s^2 + a^2 h_i^2, so the posterior over components and the mean of x0 under it are

    p_i = softmax_i( log w_i - |x_t - a y_i|^2 / (2 v_i) - D/2 log v_i )
    E[x0 | x_t] = sum_i p_i ( (s^2 y_i + a h_i^2 x_t) / v_i )

A finite set of pictures is the case h = 0: a softmax-weighted mean of the pictures. No training,
and the truth is known.
Source: EDM (arXiv 2206.00364), appendix B.3, for h = 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property

import torch
from torch import Tensor

from ..schedule import NoiseSchedule
from ..worlds.pictures import PictureWorld
from .base import Condition, Prior, Query


class ExactPrior(Prior):
    """The optimal denoiser of a labelled mixture of isotropic Gaussians; a label's components are
    its condition.

    means (N, D), float64 (float32 to save memory); width () or (N,): the components' standard
    deviations, 0 for points; log_weight (N,); label (N,) int64: which of `prompts` a component
    belongs to. The unconditional distribution is all of them. Its term "degraded" stands for what a
    text prior is told to avoid ("blurry, low quality"): all of `degraded`.
    """

    def __init__(
        self,
        means: Tensor,
        width: Tensor,
        log_weight: Tensor,
        label: Tensor,
        prompts: tuple[str, ...],
        shape: tuple[int, ...],
        schedule: NoiseSchedule | None = None,
    ):
        # its native output is E[x0]: eps then follows without dividing by a small alpha
        base = schedule or NoiseSchedule.stable_diffusion()
        super().__init__(shape, NoiseSchedule(base.alphas_cumprod, "sample"))
        # float32 pictures stay as they are: a bank of views would not fit twice
        self.means, self.width, self.log_weight = means, width.double(), log_weight.double()
        self.label, self.prompts = label, tuple(prompts)
        self._cast: dict[torch.dtype, tuple[Tensor, ...]] = {}

    @cached_property
    def degraded(self) -> ExactPrior:
        """The prior of everything made worse: here each component twice as wide."""
        return self._with(self.means, 2 * self.width)

    def _with(self, means: Tensor, width: Tensor) -> ExactPrior:
        """A copy with other means and widths."""
        other = copy(self)
        other.means, other.width, other._cast = means, width, {}
        return other

    def members(self, prompt: str) -> Tensor:
        """Which components a prompt's distribution holds: int64 positions (n,)."""
        return self.mask([self.resolve(prompt)])[0].nonzero()[:, 0]

    def mask(self, prompts: Sequence[str]) -> Tensor:
        """Which components each prompt's distribution holds: bool (n, N)."""
        return (
            self.label[None]
            == torch.tensor([self.prompts.index(prompt) for prompt in prompts])[:, None]
        )

    def log_density(self, x: Tensor, t: int | Tensor, cond: Condition | None = None) -> Tensor:
        """log p_t(x_t), of the condition or (None) of everything: (B,). Its gradient is -eps /
        sigma.
        """
        flat, t = x.flatten(1), self.schedule.check(t).expand(len(x))
        logits = self._logits(flat, t) - self._shared_part(flat, t)
        columns, given = self._columns(cond, "uncond" if cond is None else "cond")
        given = 0 if given is None else given.to(x.dtype)
        weight = (self.log_weight[columns].to(x.dtype) + given).reshape(-1, len(columns))
        return (logits[:, columns] + given).logsumexp(1) - weight.logsumexp(1)

    def _data(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Means, their half squared norms, widths and log weights, cast once for each dtype."""
        if dtype not in self._cast:
            tensors = (self.means, self.means.square().sum(1) / 2, self.width, self.log_weight)
            self._cast[dtype] = tuple(tensor.to(dtype) for tensor in tensors)
        return self._cast[dtype]

    def _logits(self, x: Tensor, t: Tensor) -> Tensor:
        """log(w_i p(x_t | i)) up to what all components share when they have one width: (M, N)."""
        means, half_norm, width, log_weight = self._data(x.dtype)
        a, s = self.schedule.at("alpha", t, x), self.schedule.at("sigma", t, x)
        v = s**2 + (a * width) ** 2
        return (a * (x @ means.T) - a**2 * half_norm) / v + log_weight

    def _shared_part(self, x: Tensor, t: Tensor) -> Tensor:
        """The rest of -log p(x_t | i), which components of one width share: (M, 1) or (M, N)."""
        width = self._data(x.dtype)[2]
        a, s = self.schedule.at("alpha", t, x), self.schedule.at("sigma", t, x)
        v = s**2 + (a * width) ** 2
        return (x.square().sum(1, keepdim=True) / v + x.shape[1] * torch.log(2 * torch.pi * v)) / 2

    def _given(self, cond: Condition, term: str) -> Tensor:
        """log of what a term leaves of each component's weight, up to a constant: 0 all, -inf
        nothing; (1 or B, N).
        """
        prompts = {"cond": cond.prompt, "negative": cond.negative}[term]
        mask = self.mask(prompts[:1] if len(set(prompts)) == 1 else prompts)
        return torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)

    def _columns(self, cond: Condition | None, term: str) -> tuple[Tensor, Tensor | None]:
        """Which components a term can reach, (n,), and `_given` for those, (1 or B, n), None where
        that is 0 for all.
        """
        if term == "uncond":
            return torch.arange(len(self.label)), None
        if term not in ("cond", "negative") or term == "negative" and not cond.negative:
            raise ValueError(
                f'no term "{term}" here; allowed: uncond, cond, degraded, and negative if the condition has one'
            )
        given = self._given(cond, term)
        columns = given.isfinite().any(0).nonzero()[:, 0]
        given = given[:, columns]
        return columns, given if bool(given.any()) else None

    def _posterior_mean(
        self, x: Tensor, t: Tensor, logits: Tensor, columns: Tensor, given: Tensor | None
    ) -> Tensor:
        """E[x0 | x_t] over the chosen components: (M, D)."""
        means, _, width, _ = self._data(x.dtype)
        everything = len(columns) == len(means)
        if not everything:
            logits, means = logits[:, columns], means[columns]
            width = width[columns] if width.ndim else width
        if given is not None:
            logits = logits + given.to(logits)
        p = logits.softmax(1)
        if not width.any():
            # at low noise few pictures weigh more than rounding: the others need not be multiplied
            weighty = (p > 1e-3 * torch.finfo(p.dtype).eps).any(0).nonzero()[:, 0]
            return p[:, weighty] @ means[weighty] if 2 * len(weighty) < len(means) else p @ means
        a, s = self.schedule.at("alpha", t, x), self.schedule.at("sigma", t, x)
        v = s**2 + (a * width) ** 2
        return (p * s**2 / v) @ means + (p * a * width**2 / v).sum(1, keepdim=True) * x

    def _outputs(
        self, queries: Sequence[Query], logits: Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        # x . y_i is the cost; it is taken once for all queries and terms, and each term's mean once
        # for all queries logits: (M, N), of all queries' items, where more is known of them than x
        # alone
        x, t = (
            parts[0] if len(parts) == 1 else torch.cat(parts)
            for parts in zip(*((q.x, q.t) for q in queries), strict=True)
        )
        x = x.flatten(1)
        if logits is None:
            logits = self._logits(x, t)
            if self.width.ndim:
                logits = logits - self._shared_part(x, t)
        sizes = [len(query.x) for query in queries]
        rows = torch.arange(len(x)).split(sizes)
        outputs: list[dict[str, Tensor]] = [{} for _ in queries]
        for term in dict.fromkeys(term for query in queries for term in query.terms):
            asked = [k for k, query in enumerate(queries) if term in query.terms]
            if term == "degraded":
                worse = self.degraded._outputs(
                    [queries[k]._replace(terms=("uncond",)) for k in asked]
                )
                for k, output in zip(asked, worse, strict=True):
                    outputs[k][term] = output["uncond"]
                continue
            columns, given = self._shared_columns([queries[k] for k in asked], term)
            here = (
                slice(None) if len(asked) == len(queries) else torch.cat([rows[k] for k in asked])
            )
            mean = self._posterior_mean(x[here], t[here], logits[here], columns, given)
            for k, part in zip(asked, mean.split([sizes[k] for k in asked]), strict=True):
                outputs[k][term] = part.reshape(queries[k].x.shape)
        return outputs

    def _shared_columns(self, queries: Sequence[Query], term: str) -> tuple[Tensor, Tensor | None]:
        """`_columns` for the items of several queries laid one after the other."""
        first = queries[0].cond
        if term == "uncond" or all(query.cond == first for query in queries) and len(first) == 1:
            return self._columns(first, term)
        wide = [
            Condition(c.prompt * n, c.negative and c.negative * n) if len(c) == 1 else c
            for c, n in ((query.cond, len(query.x)) for query in queries)
        ]
        negative = (
            tuple(p for c in wide for p in c.negative) if all(c.negative for c in wide) else None
        )
        return self._columns(
            Condition(tuple(p for c in wide for p in c.prompt), negative, view=first.view), term
        )


class GaussianMixture(ExactPrior):
    """A mixture of isotropic Gaussians in D dimensions, labelled; the first prior of the course, in
    2-D.

    means: {label: (n, D) centres}; width: one standard deviation, or {label: (n,)}; weights:
    {label: (n,)} relative weights (equal by default). Raises ValueError for centres of mixed
    dimension or a negative width or weight.
    """

    preferred_batch = 4096

    def __init__(
        self,
        means: Mapping[str, Sequence[Sequence[float]]],
        width: float | Mapping[str, Sequence[float]] = 0.1,
        weights: Mapping[str, Sequence[float]] | None = None,
        schedule: NoiseSchedule | None = None,
    ):
        centres = {
            name: torch.as_tensor(value, dtype=torch.float64) for name, value in means.items()
        }
        shapes = [tuple(c.shape) for c in centres.values()]
        if (
            not shapes
            or any(len(shape) != 2 or shape[0] == 0 for shape in shapes)
            or len({shape[1] for shape in shapes}) != 1
        ):
            raise ValueError(
                "means must map each label to centres (n, D) with n >= 1 and one D for all"
            )

        def spread(table):
            return torch.cat(
                [
                    torch.as_tensor(table[n], dtype=torch.float64).expand(len(c))
                    for n, c in centres.items()
                ]
            )

        width = torch.tensor(float(width)) if isinstance(width, (int, float)) else spread(width)
        weight = spread(weights or dict.fromkeys(centres, 1.0))
        if bool((width < 0).any()) or bool((weight <= 0).any()):
            raise ValueError("widths must be >= 0 and weights > 0")
        label = torch.repeat_interleave(
            torch.arange(len(centres)), torch.tensor([len(c) for c in centres.values()])
        )
        all_means = torch.cat(list(centres.values()))
        super().__init__(
            all_means,
            width,
            (weight / weight.sum()).log(),
            label,
            tuple(centres),
            (all_means.shape[1],),
            schedule,
        )
        self.name = "gaussian-mixture"

    def resolve(self, prompt: str) -> str:
        if prompt not in self.prompts:
            near = difflib.get_close_matches(str(prompt), self.prompts, 1, 0)
            raise ValueError(
                f'unknown label "{prompt}"; did you mean "{near[0]}"? (labels: {", ".join(self.prompts)})'
            )
        return prompt


def picture_scale(size: int) -> float:
    """The factor between pixels in [-1, 1] and an exact picture prior's space: 0.15 at 64 px.

    Distances between pictures grow with their side, the schedule's noise does not: raw 64-px
    pictures stand so far apart that the path has chosen between them before it begins to see them,
    and DDIM samples them unevenly. This is the counterpart of Stable Diffusion's 0.18215; a
    chi-square test of evenness fixes it.
    """
    return 9.6 / size


class ImageSet(ExactPrior):
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
        self.scale = float(picture_scale(pixels.shape[-1]) if scale is None else scale)
        if not self.scale > 0:
            raise ValueError(f"scale must be positive (0.15 is the default at 64 px), got {scale}")
        self.mean_picture = pixels.mean(0)
        means = self.scale * (pixels - self.mean_picture).flatten(1)
        super().__init__(
            means,
            torch.tensor(0.0),
            torch.full((len(means),), -torch.log(torch.tensor(len(means))).item()),
            world.label,
            world.prompts,
            tuple(pixels.shape[1:]),
            schedule,
        )

    @property
    def unit(self) -> float:
        return 2 * self.scale

    def identity(self):
        return {**super().identity(), "scale": self.scale}

    def resolve(self, prompt: str) -> str:
        return self.world.resolve(prompt)

    @cached_property
    def degraded(self) -> ExactPrior:
        """The prior of all pictures blurred by a Gaussian of 3 pixels, whose weights at the borders
        add up to 1 too.
        """
        far = [torch.arange(side)[:, None] - torch.arange(side) for side in self.shape[1:]]
        down, across = (torch.softmax(-(d.double() ** 2) / (2 * 3**2), dim=1) for d in far)
        offset = self.scale * self.mean_picture
        pictures = self.means.reshape(-1, *self.shape) + offset
        return self._with((down @ pictures @ across.T - offset).flatten(1), self.width)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to the prior's space, differentiably. Raises ValueError
        for another shape.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"images must be (B, {', '.join(map(str, self.shape))}) in [0, 1], got {tuple(images.shape)}"
            )
        return self.scale * (2 * images - 1 - self.mean_picture.to(images))

    def decode(self, x: Tensor) -> Tensor:
        """From the prior's space to pictures (B, 3, H, W), clamped to [0, 1]."""
        return ((x / self.scale + self.mean_picture.to(x) + 1) / 2).clamp(0, 1)
