"""Network priors that denoise several views of an object jointly, as MVDream does."""

from __future__ import annotations

from torch import Tensor, nn

from .pipeline import PipelinePrior

VIEWS = "views_per_item"  # the setting in a UNet's config that says how many views it denoises


class JointViews:
    """Self-attention over all views of a set, cross-attention within each: what makes a 2-D UNet
    one of several views.

    Items come set by set: (sets views, tokens, channels). In plain diffusers:
    `pipe.unet.set_attn_processor(JointViews(4))`. Source: MVDream (arXiv 2308.16512), section 3.1.
    """

    def __init__(self, views: int):
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.views, self.attend = views, AttnProcessor2_0()

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *rest, **options):
        if encoder_hidden_states is not None:
            return self.attend(attn, hidden_states, encoder_hidden_states, *rest, **options)
        joined = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)
        return self.attend(attn, joined).unflatten(1, (self.views, -1)).flatten(0, 1)


def join_views(unet: nn.Module, views: int) -> nn.Module:
    """The UNet, in place, as one that denoises `views` views jointly; its config says so."""
    unet.register_to_config(**{VIEWS: views})
    unet.set_attn_processor(JointViews(views))
    return unet


class MultiViewPrior(PipelinePrior):
    """The prior of a pipeline that denoises sets of views jointly: `views_per_item` of them.

    In every query the views of a set follow each other, at one t. `load_prior` makes one of a
    pipeline whose UNet's config holds "views_per_item". The network has seen sets of cameras at one
    elevation, evenly around (`dsd_lab.cameras.orbit(4, ...)`). The unconditional prediction keeps
    the cameras. Settings as for `PipelinePrior`.
    Raises ValueError for views that make no whole sets, and for a set at several t.
    """

    def __init__(self, pipe, *settings, **options):
        self.views_per_item = pipe.unet.config[VIEWS]
        join_views(pipe.unet, self.views_per_item)
        super().__init__(pipe, *settings, **options)

    def _outputs(self, queries):
        for query in queries:
            check_sets(query.t, self.views_per_item)
        return super()._outputs(queries)


def prior_of(pipe, *settings, **options) -> PipelinePrior:
    """The prior of a pipeline: a `MultiViewPrior` where its UNet's config says so."""
    unet = getattr(pipe, "unet", None)  # others have a transformer
    kind = MultiViewPrior if unet is not None and VIEWS in unet.config else PipelinePrior
    return kind(pipe, *settings, **options)


def check_sets(t: Tensor, views: int) -> None:
    """Raises ValueError unless t (B,) is of whole sets, each at one level."""
    if len(t) % views:
        raise ValueError(
            f"{len(t)} views are no whole sets of {views}; give the views of a set one after the "
            f"other, such as camera=dsd_lab.cameras.orbit({views})"
        )
    levels = t.unflatten(0, (-1, views))
    if not bool((levels == levels[:, :1]).all()):
        raise ValueError(f"the {views} views of a set are denoised at one t, got {t.tolist()}")
