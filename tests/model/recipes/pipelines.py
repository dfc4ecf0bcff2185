"""Tiny random pipelines of each family in a folder, as diffusers saves real ones; without denoisers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.encoders import AUTOENCODERS, WORDS, save_autoencoder
from vdsgen.spec.recipes.recipe import Recipe, TextEncoding

WIDTH = 16
"""Of text encoders and image encoders."""


def save_pipeline(folder: Path, recipe: Recipe, **autoencoder: Any) -> Recipe:
    """The recipe's encoders, into `folder`; returns the recipe with the tiny autoencoder's figures."""
    for seed, encoding in enumerate(recipe.text):
        save_tokenizer(folder / encoding.tokenizer)
        torch.manual_seed(seed)
        text_encoder(encoding).save_pretrained(folder / encoding.folder)
    save_autoencoder(folder / "vae", recipe.autoencoder.class_name, **autoencoder)
    if recipe.image and recipe.image.embedding:
        import transformers

        torch.manual_seed(7)
        projected = recipe.image.embedding == "projected"
        name = "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"
        config = transformers.CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_size=32,
            projection_dim=8,
        )
        getattr(transformers, name)(config).save_pretrained(folder / "image_encoder")
        processor = folder / ("feature_extractor" if projected else "image_processor")
        transformers.CLIPImageProcessor().save_pretrained(processor)
    channels, spatial, temporal = AUTOENCODERS[recipe.autoencoder.class_name][1]
    coder = replace(recipe.autoencoder, channels=channels, spatial_factor=spatial, temporal_factor=temporal)
    return replace(recipe, autoencoder=coder)


def save_tokenizer(folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def text_encoder(encoding: TextEncoding) -> Any:
    import transformers

    if encoding.encoder in ("T5EncoderModel", "UMT5EncoderModel"):
        config_class = transformers.T5Config if encoding.encoder[0] == "T" else transformers.UMT5Config
        config = config_class(
            vocab_size=len(WORDS), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.5
        )
    elif encoding.encoder == "LlamaModel":
        config = transformers.LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
    else:
        config = transformers.CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=encoding.max_tokens,
            eos_token_id=1,
            bos_token_id=1,
            pad_token_id=0,
        )
    return getattr(transformers, encoding.encoder)(config)


def diffusers_pipeline(folder: Path, recipe: Recipe, pipeline_name: str) -> Any:
    """The family's own pipeline over the same weights."""
    import diffusers
    import transformers

    parts: dict[str, Any] = {"transformer": None, "scheduler": None}
    for encoding in recipe.text:
        encoder = getattr(transformers, encoding.encoder).from_pretrained(folder / encoding.folder)
        parts[encoding.folder] = encoder.eval()
        parts[encoding.tokenizer] = transformers.AutoTokenizer.from_pretrained(folder / encoding.tokenizer)
    vae = getattr(diffusers, recipe.autoencoder.class_name)
    parts["vae"] = vae.from_pretrained(folder / "vae", low_cpu_mem_usage=False).eval()
    if recipe.image and recipe.image.embedding:
        projected = recipe.image.embedding == "projected"
        name = "CLIPVisionModelWithProjection" if projected else "CLIPVisionModel"
        encoder = getattr(transformers, name).from_pretrained(folder / "image_encoder")
        parts["image_encoder"] = encoder.eval()
        processor = "feature_extractor" if projected else "image_processor"
        parts[processor] = transformers.CLIPImageProcessor.from_pretrained(folder / processor)
        if projected:
            parts["unet"] = parts.pop("transformer")
    elif pipeline_name == "WanImageToVideoPipeline":
        parts |= {"image_encoder": None, "image_processor": None}
    return getattr(diffusers, pipeline_name)(**parts)
