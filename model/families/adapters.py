"""Low-rank adapters (peft) on a diffusers model whose own weights do not train.

Adapters are put into the skeleton before it is cut, so that every stage has its own layers'. A fresh adapter
changes nothing: of its two matrices one is drawn and the other is zero (arXiv 2106.09685, section 4.1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vdsgen.errors import VdsgenError
from vdsgen.model.families.family import Family
from vdsgen.model.families.weights import draw
from vdsgen.model.layers.initial import layer_generator
from vdsgen.spec.training import Lora

ADAPTER = "default"
"""What peft calls the only adapter there is."""
_DRAWN, _ZERO = ".lora_A.", ".lora_B."


def inject_adapters(model: Any, family: Family, adapters: Lora) -> None:
    """Freezes the model and puts adapters into it. Raises VdsgenError where a target is in no layer."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise VdsgenError(
            f"adapters are made by peft, which is not installed ({error})",
            remedy="pip install 'vdsgen[train,pretrained]'",
        ) from error
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for target in adapters.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise VdsgenError(
                f"training.lora.targets: no linear layer of {family.class_name} is called {target}",
                remedy=f"give ends of their names, such as {names[0]} or {', '.join(family.adapted)}",
            )
    model.requires_grad_(False)
    config = LoraConfig(
        r=adapters.rank,
        lora_alpha=adapters.rank if adapters.alpha is None else adapters.alpha,
        target_modules=list(adapters.targets),
    )
    inject_adapter_in_model(config, model, adapter_name=ADAPTER)


@torch.no_grad()
def draw_adapters(layer: nn.Module, seed: int, index: int) -> None:
    """Kaiming-uniform on the way down, as torch's linear layers are drawn; zero on the way up. From the seed
    and the layer's index, apart from what the layer's own weights are drawn from."""
    draw(layer, lambda name: _DRAWN in f".{name}.", layer_generator(seed, -1 - index))
    for name, parameter in layer.named_parameters():
        if _ZERO in name:
            parameter.zero_()


def is_adapter(name: str) -> bool:
    """Whether a parameter or module of this name belongs to an adapter."""
    return _DRAWN in f".{name}." or _ZERO in f".{name}."


def name_in_files(name: str) -> str:
    """What diffusers' files call a parameter: a weight as if there were no adapter, an adapter's as peft
    saves it (the model's part of a pipeline comes before that: `Family.adapter_prefix`)."""
    if is_adapter(name):
        return name.replace(f".{ADAPTER}.", ".")
    return name.replace(".base_layer.", ".")
