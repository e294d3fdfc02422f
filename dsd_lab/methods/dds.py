"""DDS: Delta Denoising Score, editing one picture into another (arXiv 2304.07090)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..priors import Condition, Query, guidance_terms, guide
from .base import Evaluations, State, UniformMethod, cost


@dataclass(frozen=True)
class DDS(UniformMethod):
    """Subtract from the picture's SDS gradient the source's own, so that only what the prompts
    differ in remains.

        g = e_g(alpha_t x + sigma_t n, t; prompt) - e_g(alpha_t x_src + sigma_t n, t; source_prompt)
        n ~ N(0, I) and t ~ U{t_min..t_max}, the same for both

    x_src is the picture that the run starts from: give it as `start` of the run. source_prompt:
    what it shows, one prompt for all items; None asks for the source without a prompt (e_u). cfg:
    guidance of both. t_min, t_max: the range of t as fractions of the schedule. For pictures, not
    for scenes. Source: arXiv 2304.07090, eq. 3.
    """

    source_prompt: str | None = None

    name = "DDS"

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.source_prompt, (str, type(None))):
            raise TypeError(
                f'source_prompt is one prompt such as "a dragon", or None, got {self.source_prompt!r}'
            )

    def begin(self, prior, cond, e_star, steps):
        known = (
            prior.condition(self.source_prompt).prompt
            if self.source_prompt is not None
            else cond.prompt[:1]
        )
        return DDSState(prior, cond, e_star, steps, replace(cond, prompt=known * len(cond)))

    def gradient(self, state, x, step, draws):
        schedule, cond = state.schedule, state.cond
        source = state.kept.setdefault("source", x.clone())
        t, n = self.draw_t(schedule, draws), draws.normal()
        terms = guidance_terms(self.cfg, cond)
        source_terms = terms if self.source_prompt is not None else ("uncond",)
        here = Query(schedule.add_noise(x, t, n), t, cond, terms)
        there = Query(schedule.add_noise(source, t, n), t, state.source_cond, source_terms)
        at_x, at_source = state.prior.predict_many([here, there])
        reference = (
            at_source["uncond"] if self.source_prompt is None else guide(at_source, self.cfg)
        )
        return guide(at_x, self.cfg).eps - reference.eps, t

    def evaluations(self, prior):
        return Evaluations(
            begin=0, step=cost(self.cfg) + (1 if self.source_prompt is None else cost(self.cfg))
        )


class DDSState(State):
    """A DDS run: the source's condition, and, kept from the first step on, the source."""

    def __init__(self, prior, cond, e_star, steps, source_cond: Condition):
        super().__init__(prior, cond, e_star, steps)
        self.source_cond = source_cond
