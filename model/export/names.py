"""What a checkpoint's tensors are called outside: the training module's names, diffusers' or peft's."""

from __future__ import annotations

from vdsgen.errors import VdsgenError
from vdsgen.model.export.stored import Stored, Weights
from vdsgen.model.families.skeleton import Skeleton


def model_tensors(weights: Weights, skeleton: Skeleton) -> dict[str, Stored]:
    """Of a model of diffusers without its adapters, under diffusers' names."""
    return _renamed(weights, skeleton.names)


def adapter_tensors(weights: Weights, skeleton: Skeleton) -> dict[str, Stored]:
    """Of its adapters, under the names that diffusers' pipelines give them (`load_lora_adapter`)."""
    prefix = skeleton.family.adapter_prefix
    return {f"{prefix}.{name}": one for name, one in _renamed(weights, skeleton.adapter_names).items()}


def _renamed(weights: Weights, names: tuple[dict[str, str], ...]) -> dict[str, Stored]:
    """`names` has a dictionary a layer, of the layer's own names without the `layer.` that stands before them
    in training (vdsgen.model.families.layer_specs)."""
    found = {}
    for index, of_layer in enumerate(names):
        for own, outside in of_layer.items():
            name = f"{index}.layer.{own}"
            if name not in weights:
                raise VdsgenError(f"the checkpoint lacks {name} ({outside})")
            found[outside] = weights[name]
    return found
