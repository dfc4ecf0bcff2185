"""Captions as a family's pipeline encodes them."""

from __future__ import annotations

import html
import importlib
import importlib.util
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vdsgen.spec.recipes.recipe import TextEncoding


def cleaned(caption: str, how: str) -> str:
    """`whitespace` as Wan's pipeline does it (`pipeline_wan.py:78`), `lower` as Latte's
    (`pipeline_latte.py:444`)."""
    if how == "lower":
        return caption.lower().strip()
    if how == "whitespace":
        if importlib.util.find_spec("ftfy") is not None:
            ftfy = importlib.import_module("ftfy")

            caption = ftfy.fix_text(caption)
        caption = html.unescape(html.unescape(caption)).strip()
        return re.sub(r"\s+", " ", caption).strip()
    return caption


@torch.no_grad()
def encode_caption(
    encoding: TextEncoding, tokenizer: Any, encoder: Any, caption: str
) -> Mapping[str, Tensor]:
    """`text` (max_tokens, D) and `text_mask` (max_tokens,) int64, or `pooled_text` (D,); on the CPU, in the
    encoder's element type."""
    words = encoding.template.format(cleaned(caption, encoding.cleaning))
    found = tokenizer(
        [words],
        padding="max_length",
        max_length=encoding.max_tokens + encoding.crop,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    ids, mask = found["input_ids"], found["attention_mask"]
    arguments = {"input_ids": ids.to(encoder.device)}
    if encoding.masked:
        arguments["attention_mask"] = mask.to(encoder.device)
    if encoding.layer is not None:
        arguments["output_hidden_states"] = True
    output = encoder(**arguments)
    if encoding.gives == "pooled_text":
        return {"pooled_text": output.pooler_output[0].cpu().clone()}
    states = output.last_hidden_state if encoding.layer is None else output.hidden_states[encoding.layer]
    text, kept = states[0, encoding.crop :].cpu(), mask[0, encoding.crop :].long()
    if encoding.padding == "zeroed":
        text = text * kept[:, None].to(text.dtype)
    return {"text": text.clone(), "text_mask": kept.clone()}
