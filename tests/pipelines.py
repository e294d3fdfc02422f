"""Tiny pipelines of each shape, with random weights."""

import torch

WORDS = "a of cat dragon red blue house tree blurry".split()
KINDS = ("sd15", "sd21", "tiny", "pixel", "variance")
SCHEDULE = dict(
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)


def make_tokenizer(length, words=WORDS):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = (
        normalizers.Lowercase(),
        pre_tokenizers.WhitespaceSplit(),
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=length,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def make_unet(channels, out_channels=None, side=8, **more):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=out_channels or channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=32,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        attention_head_dim=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **more,
    )


def make_pipe(kind, **more):
    from diffusers import (
        AutoencoderKL,
        AutoencoderTiny,
        DDIMScheduler,
        DDPMScheduler,
        IFPipeline,
        StableDiffusionPipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(KINDS.index(kind))
    unsafe = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    if kind in ("pixel", "variance"):
        text = T5EncoderModel(
            T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
        )
        unet = make_unet(3, 6 if kind == "variance" else 3, **more)
        return IFPipeline(
            tokenizer=make_tokenizer(77),
            text_encoder=text,
            unet=unet,
            scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            watermarker=None,
            **unsafe,
        )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=8,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    vae = (
        AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            scaling_factor=0.5,
        )
        if kind == "tiny"
        else AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
            scaling_factor=0.18215,
            shift_factor=0.1 if kind == "sd21" else None,
        )
    )
    scheduler = DDIMScheduler(
        **SCHEDULE, prediction_type="v_prediction" if kind == "sd21" else "epsilon"
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=make_tokenizer(8),
        unet=make_unet(4, **more),
        scheduler=scheduler,
        **unsafe,
    )


VIEW_WORDS = ("cat,", "dragon,", "front", "side", "back", "overhead", "view")


def make_view_pipe(kind):
    """A pipeline that knows the words by which it is told a camera: "a cat, front view"."""
    pipe = make_pipe(kind)
    pipe.register_modules(tokenizer=make_tokenizer(8, [*WORDS, *VIEW_WORDS]))
    return pipe
