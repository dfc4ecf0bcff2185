"""Which linear layers of a model compute in 8 bits: those of its blocks that run over tokens."""

from __future__ import annotations

from torch import nn

from vdsgen.model.families.adapters import is_adapter
from vdsgen.model.families.layer_specs import DiffusersLayer
from vdsgen.model.layers.block import Block
from vdsgen.model.low_precision.linear import compute_in
from vdsgen.spec.linear_precision import EightBit, takes

ENDS = ("embed", "final")
"""Layers of diffusers' models that are no blocks."""


def compute_blocks_in(kind: EightBit, model: nn.Module) -> list[str]:
    """Tells the linear layers of the model's blocks; returns their names. Left as they are: embeddings, the
    final projection, what makes modulation of the noise level (a row a sample), adapters, and layers whose
    sizes are no multiples of 16."""
    told = []
    for name, layer in model.named_modules():
        if not _is_block(layer):
            continue
        for inside, module in layer.named_modules():
            if isinstance(module, nn.Linear) and _is_over_tokens(inside) and _fits(module):
                compute_in(kind, module)
                told.append(f"{name}.{inside}" if name else inside)
    return told


def _is_block(layer: nn.Module) -> bool:
    return isinstance(layer, Block) or (isinstance(layer, DiffusersLayer) and layer.kind not in ENDS)


def _is_over_tokens(name: str) -> bool:
    """Modulation is computed inside norms (`norm1.linear`), or from the time's embedding
    (`time_emb_proj`)."""
    parts = name.split(".")
    return not is_adapter(name) and not any(part.startswith(("norm", "time_")) for part in parts)


def _fits(layer: nn.Linear) -> bool:
    return takes(layer.out_features, layer.in_features)
