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


def make_clip(kind, width):
    from transformers import CLIPTextConfig

    return kind(
        CLIPTextConfig(
            vocab_size=32,
            hidden_size=width,
            intermediate_size=32,
            projection_dim=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=8,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def make_t5():
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    )


def make_vae(factor, shift=None, **more):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        scaling_factor=factor,
        shift_factor=shift,
        **more,
    )


def make_pipe(kind, **more):
    from diffusers import (
        AutoencoderTiny,
        DDIMScheduler,
        DDPMScheduler,
        IFPipeline,
        StableDiffusionPipeline,
    )
    from transformers import CLIPTextModel

    torch.manual_seed(KINDS.index(kind))
    unsafe = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    if kind in ("pixel", "variance"):
        text = make_t5()
        unet = make_unet(3, 6 if kind == "variance" else 3, **more)
        return IFPipeline(
            tokenizer=make_tokenizer(77),
            text_encoder=text,
            unet=unet,
            scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            watermarker=None,
            **unsafe,
        )
    text = make_clip(CLIPTextModel, 32)
    vae = (
        AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            scaling_factor=0.5,
        )
        if kind == "tiny"
        else make_vae(0.18215, 0.1 if kind == "sd21" else None)
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


# ---- the other families


def make_sdxl(**unet):
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    told_size = dict(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    return StableDiffusionXLPipeline(
        vae=make_vae(0.13025),
        text_encoder=make_clip(CLIPTextModel, 16),
        text_encoder_2=make_clip(CLIPTextModelWithProjection, 16),
        tokenizer=make_tokenizer(8),
        tokenizer_2=make_tokenizer(8),
        unet=make_unet(4, **{**told_size, **unet}),
        scheduler=DDIMScheduler(**SCHEDULE),
        add_watermarker=False,
    )


def make_sd3(**settings):
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **settings}),
        vae=make_vae(1.5305, 0.0609),
        text_encoder=make_clip(CLIPTextModelWithProjection, 16),
        text_encoder_2=make_clip(CLIPTextModelWithProjection, 16),
        text_encoder_3=make_t5(),
        tokenizer=make_tokenizer(8),
        tokenizer_2=make_tokenizer(8),
        tokenizer_3=make_tokenizer(77),
    )


def make_pixart(kind, side, patch):
    from diffusers import DDIMScheduler, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=24,
        sample_size=side,
        patch_size=patch,
        caption_channels=32,
    )
    return kind(
        tokenizer=make_tokenizer(300),
        text_encoder=make_t5(),
        vae=make_vae(0.18215),
        transformer=transformer,
        scheduler=DDIMScheduler(**SCHEDULE),
    )


def make_pixart_alpha():
    from diffusers import PixArtAlphaPipeline

    return make_pixart(PixArtAlphaPipeline, 128, 16)  # 128: it is told the pictures' size


def make_pixart_sigma():
    from diffusers import PixArtSigmaPipeline

    return make_pixart(PixArtSigmaPipeline, 8, 2)


def make_sana(**more):
    from diffusers import (
        AutoencoderDC,
        DPMSolverMultistepScheduler,
        SanaPipeline,
        SanaTransformer2DModel,
    )
    from transformers import Gemma2Config, Gemma2Model

    both = dict(block_types=("ResBlock",) * 2, block_out_channels=(8, 8), layers_per_block=(1, 1))
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        **{
            f"{side}_{name}": value
            for side in ("encoder", "decoder")
            for name, value in both.items()
        },
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=32,
        sample_size=16,
        timestep_scale=0.5,
        **more,
    )
    gemma = Gemma2Config(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    flow = dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(
        tokenizer=make_tokenizer(300),
        text_encoder=Gemma2Model(gemma),
        vae=vae,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(**flow),
    )


def make_flux(guidance_embeds=True):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds
        ),
        vae=make_vae(0.3611, 0.1159),
        text_encoder=make_clip(CLIPTextModel, 16),
        tokenizer=make_tokenizer(8),
        text_encoder_2=make_t5(),
        tokenizer_2=make_tokenizer(512),
        transformer=transformer,
    )


FAMILIES = {
    "sd": lambda: make_pipe("sd15"),
    "sdxl": make_sdxl,
    "sd3": make_sd3,
    "pixart-alpha": make_pixart_alpha,
    "pixart-sigma": make_pixart_sigma,
    "sana": make_sana,
    "flux-dev": make_flux,
    "if": lambda: make_pipe(
        "variance",
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        encoder_hid_dim_type="text_proj",
        encoder_hid_dim=32,
    ),
}


def make_family(name, **settings):
    """A tiny pipeline of a family, with random weights of its own."""
    torch.manual_seed(100 + list(FAMILIES).index(name))
    return FAMILIES[name](**settings)
