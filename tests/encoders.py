"""Tiny random text encoders and autoencoders, saved as their libraries save the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "car", "man", "walks", "rabbit"]


def save_text_encoder(folder: Path, kind: str, width: int = 16) -> Path:
    """A T5, CLIP or BERT text encoder with a word-level tokenizer, into `folder`."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": len(WORDS)}
    if kind == "t5":
        config = transformers.T5Config(
            d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **sizes, dropout_rate=0.5
        )
        model = transformers.T5EncoderModel(config)
    elif kind == "clip":
        sizes |= {"max_position_embeddings": 12, "eos_token_id": 1, "bos_token_id": 1, "pad_token_id": 0}
        config = transformers.CLIPTextConfig(
            hidden_size=width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, **sizes
        )
        model = transformers.CLIPTextModel(config)
    else:
        config = transformers.BertConfig(
            hidden_size=width, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, **sizes
        )
        model = transformers.BertModel(config)
    model.save_pretrained(folder)
    return folder


_DOWN, _UP = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
_BLOCKS = {
    "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "encoder_qkv_multiscales": ((), (5,)),
    "decoder_qkv_multiscales": ((), (5,)),
    "encoder_layers_per_block": (1, 1),
    "decoder_layers_per_block": (1, 1),
}
_HALVES = (True, True, False, False)

AUTOENCODERS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    # class -> configuration of a tiny one; its channels, spatial and temporal factor
    "AutoencoderKL": (
        {"down_block_types": _DOWN, "up_block_types": _UP, "block_out_channels": (8, 16)}
        | {"norm_num_groups": 4, "latent_channels": 4, "scaling_factor": 0.3, "shift_factor": 0.1},
        (4, 2, 1),
    ),
    "AutoencoderKLTemporalDecoder": ({"down_block_types": _DOWN, "block_out_channels": (32, 32)}, (4, 2, 1)),
    "AutoencoderTiny": (
        {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        | {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)},
        (4, 2, 1),
    ),
    "AutoencoderDC": (
        {"latent_channels": 4, "attention_head_dim": 2, "scaling_factor": 0.41407}
        | {"downsample_block_type": "conv", "upsample_block_type": "interpolate"}
        | _BLOCKS,
        (4, 2, 1),
    ),
    "AutoencoderKLWan": (
        {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
        (16, 8, 4),
    ),
    "AutoencoderKLLTXVideo": (
        {"latent_channels": 8, "block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
        | {"layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5, "patch_size": 2}
        | {"spatio_temporal_scaling": _HALVES, "decoder_spatio_temporal_scaling": _HALVES},
        (8, 8, 4),
    ),
    "AutoencoderKLCogVideoX": (
        {"block_out_channels": (8,) * 4, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2},
        (4, 8, 4),
    ),
    "AutoencoderKLMochi": (
        {"encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4}
        | {"layers_per_block": (1,) * 5},
        (12, 8, 6),
    ),
    "AutoencoderKLHunyuanVideo": (
        {"block_out_channels": (8,) * 4, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2},
        (4, 8, 4),
    ),
}


def save_autoencoder(folder: Path, class_name: str, **changes: Any) -> Path:
    """A tiny autoencoder of the class, with random weights, into `folder`."""
    import diffusers

    torch.manual_seed(0)
    model = getattr(diffusers, class_name)(**AUTOENCODERS[class_name][0] | changes)
    model.save_pretrained(folder)
    return folder
