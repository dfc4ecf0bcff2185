"""A diffusers model without its weights, cut into layers: the same on every rank, and small on each.

Parameters of torch's own modules (linear, convolution, embedding, norm) are on the meta device. Those that
a class makes itself (scale and shift tables, weights of its own norms) keep the value that it gave them, a
few MB: nothing else knows what they start from.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vdsgen.errors import VdsgenError
from vdsgen.model.families.adapters import inject_adapters, is_adapter, name_in_files
from vdsgen.model.families.family import Cut, Family
from vdsgen.model.families.registry import family_of
from vdsgen.spec.training import Lora


@dataclass(frozen=True, slots=True, repr=False)
class Skeleton:
    """A whole model. What its layers call their parameters, and what diffusers calls them, is told by which
    tensors they are."""

    family: Family
    layers: tuple[Cut, ...]
    names: tuple[dict[str, str], ...]
    """A layer's own name of each parameter and saved buffer of the model -> its name in diffusers' files; one
    dictionary a layer."""
    adapter_names: tuple[dict[str, str], ...]
    """The same of adapters' parameters, as peft's files call them."""
    shapes: dict[str, tuple[int, ...]]
    """Of every parameter and saved buffer of the whole model, adapters excepted."""
    adapters: Lora | None = None

    def __repr__(self) -> str:
        return f"{self.family.class_name} of {len(self.layers)} layers"


def build_skeleton(
    class_name: str, config: Mapping[str, Any], seed: int, adapters: Lora | None = None
) -> Skeleton:
    """Builds on the current device what is not a weight; with adapters, nothing but those trains.

    Values that the class draws itself come from `seed` alone. Raises VdsgenError for a class that nobody has
    cut, and for a configuration that the class does not take.
    """
    family = family_of(class_name)
    with torch.random.fork_rng(devices=[]), _weights_on_meta():
        torch.manual_seed(seed)
        model = _built(class_name, config)
        if adapters is not None:
            inject_adapters(model, family, adapters)
    layers = tuple(family.cut(model))
    in_model = {id(tensor): name for name, tensor in saved_tensors(model)}
    found = [{own: in_model[id(tensor)] for own, tensor in saved_tensors(x.module)} for x in layers]
    missed = set(in_model.values()) - {name for names in found for name in names.values()}
    assert not missed, f"no layer of {class_name} has {sorted(missed)}"
    return Skeleton(
        family,
        layers,
        names=tuple(_in_files(names, of_adapters=False) for names in found),
        adapter_names=tuple(_in_files(names, of_adapters=True) for names in found),
        shapes={
            name_in_files(name): tuple(tensor.shape)
            for name, tensor in saved_tensors(model)
            if not is_adapter(name)
        },
        adapters=adapters,
    )


def _in_files(names: Mapping[str, str], *, of_adapters: bool) -> dict[str, str]:
    return {own: name_in_files(name) for own, name in names.items() if is_adapter(name) == of_adapters}


def saved_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers under their names in the state dict."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            yield name, tensor


def model_class(class_name: str) -> Any:
    """diffusers' class. Raises VdsgenError where diffusers is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise VdsgenError(
            f"{class_name} is a model of diffusers, which is not installed ({error})",
            remedy="pip install 'vdsgen[train,pretrained]'",
        ) from error
    return getattr(diffusers, class_name)


def check_keys(class_name: str, config: Mapping[str, Any]) -> None:
    """Raises VdsgenError for keys that the class would leave unread; those with '_' are diffusers' own."""
    known = inspect.signature(model_class(class_name).__init__).parameters.keys() - {"self"}
    unknown = sorted(key for key in config.keys() - known if not key.startswith("_"))
    if unknown:
        raise VdsgenError(
            f"{class_name} does not know {', '.join(unknown)}",
            remedy=f"its configuration has {', '.join(sorted(known))}",
        )


def _built(class_name: str, config: Mapping[str, Any]) -> Any:
    check_keys(class_name, config)
    quiet = logging.getLogger("diffusers")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        return model_class(class_name).from_config(dict(config))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError) as error:
        raise VdsgenError(f"{class_name} cannot be built from its configuration: {error}") from error
    finally:
        quiet.setLevel(level)


@contextmanager
def _weights_on_meta() -> Iterator[None]:
    """Inside, parameters of modules that can draw them anew (`reset_parameters`) take no memory.

    Accelerate's init_empty_weights without a choice takes all; a class's own values would be lost.
    """
    register = nn.Module.register_parameter

    def registered(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and hasattr(self, "reset_parameters") and not param.is_meta:
            param = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = registered  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
