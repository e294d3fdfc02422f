"""DDS: Delta Denoising Score, editing one picture into another (arXiv 2304.07090)."""

from dataclasses import dataclass, replace

from torch import Tensor

from ..priors import Condition, Query, guidance_terms, guide
from .base import Evaluations, cost, first_prediction
from .state import State
from .timesteps import UniformMethod


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
    for_scenes = False
    needs_source = True

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.source_prompt, (str, type(None))):
            raise TypeError(
                f'source_prompt is one prompt such as "a dragon", or None, got '
                f"{self.source_prompt!r}"
            )

    def begin(self, prior, cond, e_star, steps, source: Tensor | None = None):
        """The state of a run that edits `source`, (B, *shape); without one, x0hat(e*, T - 1)."""
        if source is None:
            source = first_prediction(prior, cond, e_star, self.cfg).x0
        source_cond = cond
        if self.source_prompt is not None:
            prompt = prior.condition(self.source_prompt).prompt
            source_cond = replace(cond, prompt=prompt * len(cond))
        return DDSState(
            prior, cond, e_star, steps, {"source": source.clone()}, source_cond=source_cond
        )

    def start(self, state):
        return state.kept["source"]

    def gradient(self, state, x, step, draws):
        t, n, x_t = self.draw_point(state, x, step, draws)
        source_t = state.schedule.add_noise(state.kept["source"], t, n)
        e_x, e_source = self.predictions(state, x_t, source_t, t)
        return e_x - e_source, t, state

    def predictions(
        self, state: "DDSState", x_t: Tensor, source_t: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """e_g of the picture and of the source, from one call of the network: (B, *shape) each."""
        terms = guidance_terms(self.cfg, state.cond)
        no_prompt = self.source_prompt is None
        source_terms = ("uncond",) if no_prompt else terms
        at_x, at_source = state.prior.predict_many(
            [Query(x_t, t, state.cond, terms), Query(source_t, t, state.source_cond, source_terms)]
        )
        e_source = at_source["uncond"].eps if no_prompt else guide(at_source, self.cfg).eps
        return guide(at_x, self.cfg).eps, e_source

    def evaluations(self, prior):
        source = 1 if self.source_prompt is None else cost(self.cfg, prior)
        return Evaluations(begin=0, step=cost(self.cfg, prior) + source)


@dataclass(frozen=True, eq=False, kw_only=True)
class DDSState(State):
    """A DDS run: it keeps the source, and the source's condition."""

    source_cond: Condition
