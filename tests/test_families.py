"""Every family of pretrained pipelines, tiny and with random weights: made here, saved, loaded
again, and held against what diffusers' own pipeline does.
"""

import warnings
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from pipelines import FAMILIES, WORDS, make_family, make_tokenizer, make_unet

from dsd_lab import (
    CSD,
    DSD,
    ISM,
    NFSD,
    SDI,
    SDS,
    Camera,
    DSDStar,
    ddim,
    distill,
    load_prior,
    text_to_3d,
)
from dsd_lab.distill.scenes import Stage
from dsd_lab.methods import VARIANTS, variant
from dsd_lab.priors import Condition, PipelinePrior, Query, ViewPrompts
from dsd_lab.priors.families import SUPPORTED
from dsd_lab.priors.families.transformers import pack, places, unpack
from dsd_lab.priors.loading import load_pipeline
from dsd_lab.priors.network import quiet
from dsd_lab.priors.view_prompts import perp_neg_parts, perpendicular

FLOWS = ("sd3", "sana", "flux-dev")
LEVELS = [800, 300]
SMALL = [name for name in FAMILIES if name != "pixart-alpha"]  # that one has large latents


@pytest.fixture(scope="module")
def priors(tmp_path_factory):
    """By name; each is saved and loaded when it is first asked for."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def prior(name):
        with quiet():
            make_family(name).save_pretrained(root / name)
        return load_pipeline(root / name, "cpu", size=16 if name == "flux-dev" else None)

    return prior


@pytest.fixture(params=FAMILIES)
def prior(request, priors):
    return priors(request.param)


@pytest.fixture(params=SMALL)
def small(request, priors):
    return priors(request.param)


@pytest.fixture
def sd3(priors):
    return priors("sd3")


@pytest.fixture
def flux(priors):
    return priors("flux-dev")


def slow_but(quick, *names):
    """Names as parameters, all but one of them slow."""
    return [pytest.param(n, marks=[] if n == quick else pytest.mark.slow) for n in names]


def some_prompt(prior):
    return prior.condition("a red dragon")


def terms_of(prior):
    return ("uncond", "cond") if prior.has_uncond else ("cond",)


# ---- what its own pipeline does


@contextmanager
def recorded(network):
    """What a network is called with, and what it says."""
    calls = []

    def keep(module, args, kwargs, output):
        x = args[0] if args else kwargs["hidden_states"]
        t = args[1] if len(args) > 1 else kwargs["timestep"]
        calls.append((x, t, output[0]))

    handle = network.register_forward_hook(keep, with_kwargs=True)
    yield calls
    handle.remove()


def own_run(prior, monkeypatch):
    """Two steps of the pipeline's own sampling at cfg 3: its result, and the network's calls."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe, name, noise = prior.pipe, prior.name, prior.noise([0, 1])
    height, width = prior.image_shape[1:]
    settings = dict(guidance_scale=3.0, num_inference_steps=2, height=height, width=width)
    if name in FLOWS:  # levels that are in the table, before their shift
        settings["sigmas"] = [(level + 1) / 1000 for level in LEVELS]
        noise = prior.schedule.to_input(noise, LEVELS[0])
    if name == "flux-dev":
        settings |= dict(guidance_scale=3.5, latents=pack(noise))
    elif name != "if":
        settings["latents"] = noise
    if name == "sana":  # whose own scheduler rounds the time that the network is told
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        monkeypatch.setattr(pipe, "scheduler", scheduler)
    if name in ("if", "sana") or name.startswith("pixart"):
        settings["clean_caption"] = False
    if name == "sana" or name.startswith("pixart"):
        settings["use_resolution_binning"] = False
    pipe.set_progress_bar_config(disable=True)
    kind = "pt" if name == "if" else "latent"
    with recorded(prior.unet) as calls, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = pipe(["a red dragon"] * 2, output_type=kind, **settings)
    return result.images, calls, noise


def test_its_pipelines_own_denoising_step(prior, monkeypatch):
    _, calls, _ = own_run(prior, monkeypatch)
    terms = terms_of(prior)
    assert len(calls) == 2
    for k, (x, _, output) in enumerate(calls):
        level = LEVELS[k] if prior.name in FLOWS else int(prior.pipe.scheduler.timesteps[k])
        shape = 2, *prior.shape
        shown = [unpack(x, shape)] if prior.name == "flux-dev" else x.chunk(len(terms))
        said = [unpack(output, shape)] if prior.name == "flux-dev" else output.chunk(len(terms))
        factor = prior.schedule.to_input(torch.ones(2, 1, 1, 1), level)  # of x_flow over x_t
        answers = prior.predict(shown[0] / factor, level, some_prompt(prior), terms)
        for term, want in zip(terms, said, strict=True):
            want = want[:, : prior.shape[0]]
            assert want.std() > 0.05
            torch.testing.assert_close(answers[term].output, want, rtol=1e-5, atol=1e-5)
    told = prior._time(torch.tensor([LEVELS[0]])) if prior.name in FLOWS else None
    if told is not None:
        own = calls[0][1][:1] / (prior.unet.config.get("timestep_scale") or 1)
        torch.testing.assert_close(told, own, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_eulers_steps_of_a_flow_are_ddims(name, priors, monkeypatch):
    prior = priors(name)
    result, _, x_flow = own_run(prior, monkeypatch)
    if name == "flux-dev":
        result = unpack(result, (2, *prior.shape))
    noise = x_flow / prior.schedule.to_input(torch.ones(2, 1, 1, 1), LEVELS[0])
    path = ddim(prior, noise, some_prompt(prior), cfg=3.0 if prior.has_uncond else 1, levels=LEVELS)
    torch.testing.assert_close(path.final, result, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sdxl", "pixart-sigma"])
def test_its_pipelines_own_sampling(name, priors, monkeypatch):
    prior = priors(name)
    result, _, noise = own_run(prior, monkeypatch)
    levels = [*prior.pipe.scheduler.timesteps.tolist(), 0]
    path = ddim(prior, noise, some_prompt(prior), cfg=3.0, levels=levels)
    torch.testing.assert_close(path.x_t[-1], result, rtol=1e-5, atol=1e-5)


def test_encode_and_decode(small):
    prior = small
    images = torch.rand(2, *prior.image_shape, generator=torch.Generator().manual_seed(0))
    x, vae = prior.encode(images.requires_grad_()), prior.vae
    pixels = 2 * images - 1
    if vae is None:
        want, back = pixels, x
    else:
        encoded, shift = vae.encode(pixels), vae.config.get("shift_factor") or 0.0
        latents = encoded.latent if prior.name == "sana" else encoded.latent_dist.mean
        want = (latents - shift) * vae.config.scaling_factor
        back = vae.decode(x / vae.config.scaling_factor + shift).sample
    torch.testing.assert_close(x, want)
    torch.testing.assert_close(prior.decode(x), (back / 2 + 0.5).clamp(0, 1))
    x.square().sum().backward()
    assert all((grad.abs() > 0).any() for grad in images.grad)


def test_an_autoencoder_with_the_mean_and_the_spread_of_its_latents():
    pipe = make_family("sdxl")
    mean, std = [0.1, 0.2, -0.3, 0.0], [2.0, 1.0, 0.5, 4.0]
    pipe.vae.register_to_config(latents_mean=mean, latents_std=std)
    prior = PipelinePrior(pipe, "sdxl", "cpu")
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = pipe.vae.encode(2 * images - 1).latent_dist.mean
    mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
    x = prior.encode(images)
    torch.testing.assert_close(x, (latents - mean) * 0.13025 / std)
    want = pipe.vae.decode(x * std / 0.13025 + mean).sample  # as the pipeline has it
    torch.testing.assert_close(prior.decode(x), (want / 2 + 0.5).clamp(0, 1))


# ---- the contract


def test_items_and_queries_do_not_depend_on_each_other(small):
    x, t = small.noise([0, 1, 2]), torch.tensor([5, 600, 999])
    prompts, terms = ["a dragon", "a cat", "a red tree"], terms_of(small)
    calls = []
    handle = small.unet.register_forward_hook(lambda *_: calls.append(1))
    together, other = small.predict_many(
        [
            Query(x, t, small.condition(prompts), terms),
            Query(x[:1], 300, small.condition("a blue house"), terms),
        ]
    )
    handle.remove()
    assert len(calls) == 1  # one call of the network for all items, terms and queries
    for i, prompt in enumerate(prompts):
        alone = small.predict(x[i : i + 1], int(t[i]), small.condition(prompt), terms)
        for term in terms:
            got = together[term].output[i : i + 1]
            torch.testing.assert_close(got, alone[term].output, rtol=1e-5, atol=1e-5)
    alone = small.predict(x[:1], 300, small.condition("a blue house"), terms)
    torch.testing.assert_close(other["cond"].output, alone["cond"].output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in SMALL if n != "flux-dev"])
def test_terms_of_guidance(name, priors):
    prior, x = priors(name), priors(name).noise([0])
    cond = prior.condition("a dragon", negative="a blue house")
    e = {k: p.eps for k, p in prior.predict(x, 700, cond, ("uncond", "cond", "negative")).items()}
    assert min((e[a] - e[b]).abs().max() for a, b in (("uncond", "cond"), ("cond", "negative"))) > 0
    got = prior.predict_noise(x, 700, cond, 4.0)
    want = e["negative"] + 4 * (e["cond"] - e["negative"])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_mixture_of_texts(small):
    x = small.noise([0])
    name = small.blend({"a dragon": 1.0, "a cat": 0.0})
    cond = small.condition("a dragon")
    blended = small.predict(x, 500, type(cond)((name,)), ("cond",))["cond"].output
    plain = small.predict(x, 500, cond, ("cond",))["cond"].output
    torch.testing.assert_close(blended, plain, rtol=1e-5, atol=1e-5)


def test_a_mixture_shows_what_any_of_its_texts_shows(priors):
    """Where a family has a mask: that of the longest text."""
    prior = priors("pixart-sigma")
    name = prior.blend({"a red dragon of a house": 0.5, "a": 0.5})
    mixed, long = prior.embeddings.of(
        prior.embeddings.texts([name, "a red dragon of a house"], True)
    )
    assert torch.equal(mixed["mask"], long["mask"])


def test_text_encoders_are_not_needed_again(small):
    cond = small.condition("a dragon", negative="a tree")
    small.prepare(cond)
    calls = []
    handles = [
        getattr(small.pipe, part).register_forward_hook(lambda *_: calls.append(1))
        for part in small.family.encoders
    ]
    terms = ("cond", "negative", "uncond") if small.has_uncond else ("cond",)
    small.predict(small.noise([0]), 500, cond, terms)
    for handle in handles:
        handle.remove()
    assert not calls


def test_packing():
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    tokens = pack(x)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(unpack(tokens, x.shape), x)
    assert torch.equal(tokens[0, 4].reshape(3, 2, 2), x[0, :, 2:4, 2:4])  # row 1, column 1
    assert places(2, 3, x)[4].tolist() == [0, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, sd3):
    pipe = make_family("sd3")
    pipe.transformer.load_state_dict(sd3.unet.state_dict())
    for part in sd3.family.encoders:
        getattr(pipe, part).load_state_dict(getattr(sd3.pipe, part).state_dict())
    half = PipelinePrior(pipe, "half", "cpu", dtype)
    x, cond = sd3.noise([0, 1]), sd3.condition("a dragon")
    with recorded(half.unet) as calls:
        got, want = (p.predict_guided(x, 877, cond, 2.0).output for p in (half, sd3))
    assert got.dtype == torch.float32 and (got - want).norm() < 0.05 * want.norm()
    ((_, time, _),) = calls  # bfloat16 would make it a multiple of 4
    assert time[0].item() == pytest.approx(1000 * sd3.schedule.time[877].item(), rel=1e-7)


def test_an_autoencoder_that_overflows_in_half_precision_stays_whole():
    prior = PipelinePrior(make_family("sdxl"), "sdxl", "cpu", torch.float16)
    assert prior.vae.dtype == torch.float32 and prior.unet.dtype == torch.float16
    assert prior.decode(prior.noise([0])).dtype == torch.float32


def test_what_overflows_in_half_precision_in_t5_stays_whole():
    prior = PipelinePrior(make_family("sd3"), "sd3", "cpu", torch.float16)
    t5 = prior.pipe.text_encoder_3
    kept = {name for name, weight in t5.named_parameters() if weight.dtype == torch.float32}
    assert kept and all(".wo." in name for name in kept) and t5.dtype == torch.float16
    cond = prior.condition("a cat")
    assert prior.predict_noise(prior.noise([0]), 500, cond).isfinite().all()
    other = PipelinePrior(make_family("sd3"), "sd3", "cpu", torch.bfloat16)
    assert {weight.dtype for weight in other.pipe.text_encoder_3.parameters()} == {torch.bfloat16}


# ---- the sizes of published networks, on shapes alone


def published(name):
    """A network of a published size, without its weights, and the shape of its latents."""
    import diffusers

    if name == "sdxl":
        return diffusers.UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ), (4, 128, 128)
    if name == "sd3":  # 3.5 medium
        return diffusers.SD3Transformer2DModel(
            num_layers=24,
            num_attention_heads=24,
            caption_projection_dim=1536,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        ), (16, 128, 128)
    if name == "pixart-alpha":
        return diffusers.PixArtTransformer2DModel(caption_channels=4096), (4, 128, 128)
    if name == "sana":
        return diffusers.SanaTransformer2DModel(), (32, 32, 32)
    return diffusers.FluxTransformer2DModel(guidance_embeds=True), (16, 128, 128)


TOLD = {
    "sdxl": {"embedded": (77, 2048), "pooled": (1280,)},
    "sd3": {"embedded": (333, 4096), "pooled": (2048,)},
    "pixart-alpha": {"embedded": (120, 4096), "mask": (120,)},
    "sana": {"embedded": (300, 2304), "mask": (300,)},
    "flux-dev": {"embedded": (512, 4096), "pooled": (768,)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLD)
def test_a_network_of_its_published_size_can_be_asked(name, priors):
    family = priors(name).family
    with torch.device("meta"), torch.no_grad():
        network, shape = published(name)
        more = family.more(network, (1024, 1024), 3.5)
        sizes = TOLD[name] | {part: tuple(each.shape) for part, each in more.items()}
        told = {part: torch.zeros(2, *size) for part, size in sizes.items()}
        output = family.ask(network, torch.zeros(2, *shape), torch.zeros(2), told)
    assert output.shape[2:] == shape[1:] and output.shape[1] in (shape[0], 2 * shape[0])
    assert sum(weight.numel() for weight in network.parameters()) > 5e8


def test_pictures_of_another_size(sd3):
    prior = PipelinePrior(make_family("sdxl"), "sdxl", "cpu", size=32)
    assert prior.shape == (4, 16, 16) and prior.image_shape == (3, 32, 32)
    assert prior._more["time_ids"].tolist() == [32, 32, 0, 0, 32, 32]
    with pytest.raises(ValueError, match="multiple of 4 pixels for StableDiffusion3Pipeline, got"):
        PipelinePrior(sd3.pipe, "sd3", "cpu", size=18)


def test_levels_that_follow_the_size():
    time = [
        PipelinePrior(make_family("flux-dev"), "f", "cpu", size=size).schedule.time[499]
        for size in (16, 32)
    ]
    mu = [0.5 + (1.15 - 0.5) / (4096 - 256) * (tokens - 256) for tokens in (16, 64)]
    want = torch.sigmoid(torch.tensor(mu, dtype=torch.float64))  # at u = 1/2
    torch.testing.assert_close(torch.stack(time), want, rtol=1e-12, atol=0)


# ---- methods

NEED_UNCOND = {"csd", "nfsd", "ism"}


def made(name, prior):
    """A method as it can be run on a prior."""
    more = {"cfg": 1.0} if not prior.has_uncond else {}
    if name.startswith("sdi"):
        more |= {"inversion_steps": 2, "inversion_cfg": 1.0}
    if variant(name).kind.needs_source:
        more["source_prompt"] = "a red house"
    if name == "vsd-network":
        more |= {"hidden": 8}
    if variant(name).kind is DSD:
        more["spacing"] = 250
    return variant(name).make(**more)


RUNS = [
    pytest.param(family, name, marks=[] if family == "sd3" else pytest.mark.slow)
    for family in ("sdxl", "sd3", "pixart-sigma", "sana", "flux-dev", "if")
    for name in VARIANTS
]


@pytest.mark.parametrize(("family", "name"), RUNS)
def test_a_method_runs_and_goes_on(family, name, priors):
    prior = priors(family)
    if not prior.has_uncond and name in NEED_UNCOND:
        with pytest.raises(ValueError, match="ask it at cfg=1; .*CSD, NFSD, ISM"):
            distill(prior, "a cat", made(name, prior), [0], 2).finish()
        return
    whole, half, again = (
        distill(prior, "a cat", made(name, prior), [0, 1, 2], 3) for _ in range(3)
    )
    whole.finish()
    assert whole.x.isfinite().all() and whole.x.std() > 1e-4
    next(half)
    again.load_state_dict(half.state_dict())
    torch.testing.assert_close(again.finish().x, whole.x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", slow_but("sd3", "sdxl", "sd3", "sana"))
def test_views_in_words_and_perp_neg(name):
    """The formula of Perp-Neg from the family's own predictions, and an object by it."""
    pipe = make_family(name)
    words = [*WORDS, "cat,", "front", "side", "back", "overhead", "view"]
    for part in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        if getattr(pipe, part, None) is not None:
            pipe.register_modules(
                **{part: make_tokenizer(getattr(pipe, part).model_max_length, words)}
            )
    inner = PipelinePrior(pipe, name, "cpu")
    prior, camera, x = ViewPrompts(inner, perp_neg=True), Camera(60, 10), inner.noise([0, 1])
    share, negatives = perp_neg_parts(camera)
    blend = inner.blend({"a cat" + word: part for word, part in share.items()})
    terms = inner.predict(x, 400, Condition((blend,)))
    e_u = terms["uncond"].eps
    e_pos = terms["cond"].eps - e_u
    e = e_u + 3 * e_pos
    for word, weight in negatives:
        e_i = inner.predict_noise(x, 400, inner.condition("a cat" + word)) - e_u
        e = e + 3 * weight * perpendicular(e_i, e_pos)
    got = prior.predict_noise(x, 400, prior.condition("a cat", camera=camera), 3.0)
    torch.testing.assert_close(got, e, rtol=1e-4, atol=1e-5)
    stages = (Stage(16, 6, 1.0, 2),)
    scene = text_to_3d(prior, "a cat", DSD(form="unit", cfg=2.0), 0, 2, stages=stages)
    assert scene.field.grid.isfinite().all()


def test_dsd_star_is_ddim_on_a_flow(sd3):
    cond, noise = some_prompt(sd3), sd3.noise([0, 1])
    path = ddim(sd3, noise, cond, 5, 3.0)
    run = distill(sd3, cond, DSDStar(cfg=3.0), [0, 1], 5).finish()
    torch.testing.assert_close(run.x, path.final, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [SDS(), SDI(cfg=1), CSD(cfg=1), NFSD(cfg=1), ISM(cfg=1)])
def test_what_needs_a_prediction_without_a_prompt_is_refused_by_flux(method, flux):
    with pytest.raises(ValueError, match='flux-dev has no term "uncond", as its guidance is built'):
        distill(flux, "a cat", method, [0], 2).finish()


def test_the_guidance_that_flux_is_told(flux):
    other = PipelinePrior(flux.pipe, "other", "cpu", size=16, guidance=7.0)
    x, cond = flux.noise([0]), flux.condition("a cat")
    a, b = (p.predict_noise(x, 500, cond) for p in (flux, other))
    assert (a - b).abs().max() > 1e-4
    assert (other.identity()["guidance"], flux.identity()["guidance"]) == (7.0, 3.5)
    with pytest.raises(TypeError, match="guidance must be a number"):
        PipelinePrior(flux.pipe, "other", "cpu", size=16, guidance="high")


def test_sanas_instruction_is_read_before_what_is_wanted_alone(priors):
    prior = priors("sana")
    cond = prior.condition("a dragon", negative="a dragon")
    told = prior.predict(prior.noise([0]), 500, cond, ("cond", "negative"))
    assert (told["cond"].output - told["negative"].output).abs().max() > 1e-4


def test_no_prompt_is_not_the_empty_one_in_sdxl(priors):
    prior = priors("sdxl")
    (told,) = prior.embeddings.of([("", False)])
    assert not told["embedded"].any() and not told["pooled"].any()
    pipe = make_family("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert PipelinePrior(pipe, "xl", "cpu").embeddings.of([("", False)])[0]["embedded"].any()


# ---- refusals


def refused(message, name, size=None, **parts):
    pipe = make_family(name)
    for part, value in parts.items():
        setattr(pipe, part, value)
    with pytest.raises(ValueError, match=message):
        PipelinePrior(pipe, name, "cpu", size=size)


def test_pipelines_that_want_more():
    from diffusers import (
        DDIMScheduler,
        FlowMatchLCMScheduler,
        SCMScheduler,
        UniPCMultistepScheduler,
    )

    refused("text_encoder_2", "sdxl", text_encoder_2=None)
    refused("lacks its autoencoder", "sd3", vae=None)
    refused("is not told the size of its pictures", "sdxl", unet=make_unet(4))
    wide = make_unet(
        4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=9,
    )
    refused("does not take a noisy picture, a time and a prompt alone", "sdxl", unet=wide)
    refused("FlowMatchLCMScheduler, the sign of", "sd3", scheduler=FlowMatchLCMScheduler())
    refused("epsilon predictions; Stable Diffusion 3", "sd3", scheduler=DDIMScheduler())
    refused("is not supported: its times are the angles", "sana", scheduler=SCMScheduler())
    betas = UniPCMultistepScheduler(prediction_type="flow_prediction")
    refused("use_flow_sigmas is not set", "sana", scheduler=betas)
    with pytest.raises(ValueError, match="guidance_embeds=True.* as Sana-Sprint is"):
        PipelinePrior(make_family("sana", guidance_embeds=True), "sana", "cpu")


def test_an_ip_adapter_on_a_transformer():
    pipe = make_family("flux-dev")
    pipe.transformer.encoder_hid_proj = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="shown a picture too.*unload_ip_adapter"):
        PipelinePrior(pipe, "flux", "cpu", size=16)


def test_a_flux_that_is_shown_more_than_its_latents():
    known = make_family("flux-dev").transformer
    depth = type(known).from_config(known.config, in_channels=32, out_channels=16)
    refused(
        "32 input channels where its pictures or latents have 16", "flux-dev", 16, transformer=depth
    )


def test_pipelines_of_families_that_are_not_known(tmp_path):
    for kind in ("Lumina2Pipeline", "QwenImagePipeline", "LatentConsistencyModelPipeline"):
        (tmp_path / "model_index.json").write_text(f'{{"_class_name": "{kind}"}}')
        with pytest.raises(ValueError, match=f"holds a {kind} of .*supported are .*FLUX.1 dev"):
            load_prior(tmp_path, device="cpu")
    assert "Sana" in SUPPORTED


@pytest.mark.parametrize("name", ["sdxl-turbo", "somebody/SD-XL-Lightning", "trailing", "schnell"])
def test_networks_of_a_few_steps_are_asked_at_cfg_1(name):
    from diffusers import EulerAncestralDiscreteScheduler

    pipe = make_family("flux-dev", guidance_embeds=False) if name == "schnell" else None
    if pipe is None:
        pipe = make_family("sdxl")
    if name == "trailing":
        pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(
            pipe.scheduler.config, timestep_spacing="trailing"
        )
    size = 16 if name == "schnell" else None
    with pytest.warns(UserWarning, match="distilled to a few steps .* at cfg=1 alone"):
        prior = PipelinePrior(pipe, "mine" if name == "trailing" else name, "cpu", size=size)
    x, cond = prior.noise([0]), prior.condition("a cat")
    assert prior.predict_noise(x, 500, cond, 1.0).isfinite().all()
    with pytest.raises(ValueError, match="ask it at cfg=1"):
        prior.predict_noise(x, 500, cond, 2.0)
