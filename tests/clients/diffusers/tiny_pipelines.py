# SPDX-License-Identifier: Apache-2.0
"""Small random pipelines that run end to end on a CPU, from prompt embeddings to an image."""

from __future__ import annotations

import inspect

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)


def qwen_transformer() -> QwenImageTransformer2DModel:
    torch.manual_seed(0)
    return QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=3,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(8, 4, 4),
    ).eval()  # fmt: skip


def qwen_inputs(transformer: QwenImageTransformer2DModel) -> dict:
    """A batch of two whose second prompt is shorter: a mask with a hole between its text and the image."""
    generator = torch.Generator().manual_seed(1)
    text_mask = torch.ones(2, 7, dtype=torch.long)
    text_mask[1, 4:] = 0
    inputs = dict(
        hidden_states=torch.randn(2, 16, 16, generator=generator),
        encoder_hidden_states=torch.randn(2, 7, 16, generator=generator),
        encoder_hidden_states_mask=text_mask,
        timestep=torch.ones(2),
        img_shapes=[(1, 4, 4)] * 2,
        return_dict=False,
    )
    if "txt_seq_lens" in inspect.signature(transformer.forward).parameters:
        inputs["txt_seq_lens"] = [7, 7]
    return inputs


def qwen_image():
    transformer = qwen_transformer()
    vae = AutoencoderKLQwenImage(
        base_dim=24, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    pipeline = QwenImagePipeline(FlowMatchEulerDiscreteScheduler(), vae, None, None, transformer)
    prompt = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(1, 7, dtype=torch.long)
    return pipeline, dict(prompt_embeds=prompt, prompt_embeds_mask=mask), transformer


def flux():
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4,), layers_per_block=1, latent_channels=1, norm_num_groups=1, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5035,
    )  # fmt: skip
    pipeline = FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae, None, None, None, None, transformer)
    generator = torch.Generator().manual_seed(2)
    inputs = dict(
        prompt_embeds=torch.randn(1, 9, 32, generator=generator),
        pooled_prompt_embeds=torch.randn(1, 32, generator=generator),
    )
    return pipeline, inputs, transformer


def sdxl():
    """A UNet whose attention processors call PyTorch's attention themselves."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=32, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80, cross_attention_dim=64,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, sample_size=32,
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(vae, None, None, None, None, unet, EulerDiscreteScheduler())
    generator = torch.Generator().manual_seed(2)
    inputs = dict(
        prompt_embeds=torch.randn(1, 9, 64, generator=generator),
        pooled_prompt_embeds=torch.randn(1, 32, generator=generator),
        guidance_scale=1.0,
    )
    return pipeline, inputs, unet


PIPELINES = {"qwen_image": qwen_image, "flux": flux, "sdxl": sdxl}


def image(pipeline, inputs) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    output = pipeline(
        **inputs, height=32, width=32, num_inference_steps=2, generator=generator, output_type="pt"
    )  # fmt: skip
    return output.images
