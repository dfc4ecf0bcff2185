"""Unknown keys: what was probably meant, and where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from pydantic import BaseModel

from vdsgen.spec.describe import as_model, field_types, item_type, members
from vdsgen.spec.secrets import is_secret_name
from vdsgen.spec.source import KeyPath, dotted
from vdsgen.spec.suggest import did_you_mean

_OTHER_NAMES = {
    "lr": "learning_rate",
    "fps": "frame_rate",
    "batch_size": "global_batch_size",
    "train_batch_size": "global_batch_size",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "max_steps": "steps",
    "num_frames": "frames",
    "num_nodes": "nodes",
    "num_gpus": "gpus_per_node",
    "gpus": "gpus_per_node",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "dtype": "precision",
    "eps": "epsilon",
    "grad_clip": "gradient_clipping",
    "optim": "optimizer",
    "lr_scheduler": "schedule",
    "scheduler": "schedule",
    "vae": "latents",
}
"""What other tools call our keys."""


def unknown_key_remedy(
    path: KeyPath, here: type[BaseModel] | None, root: type[BaseModel]
) -> tuple[str | None, str | None]:
    """What to write instead of the last key of `path`, and the key of the same mapping that was meant.

    A key that is right somewhere else is sent there; then a near name here, then the keys there are.
    """
    word = str(path[-1])
    if is_secret_name(word):
        return "secrets go into the environment of whoever starts the run, never into a file", None
    known = list(here.model_fields) if here is not None else []
    name = _OTHER_NAMES.get(word, word)
    if name in known:
        return f"did you mean {name}?", name
    # What it would be at this very place belongs to another kind of mapping that might stand here.
    places = [place for place in _all_places(root) if place != dotted(path)]
    elsewhere = [place for place in places if place.rsplit(".", 1)[-1] == name]
    near = did_you_mean(word, known)
    if elsewhere and not (near and _same_letters(near, word)):
        return f"did you mean {elsewhere[0]}?", None
    if near is not None:
        return f"did you mean {near}?", near
    anywhere = did_you_mean(word, [place.rsplit(".", 1)[-1] for place in places])
    if anywhere is not None and anywhere != word and len(word) > 3:
        place = next(place for place in places if place.rsplit(".", 1)[-1] == anywhere)
        return f"did you mean {place}?", None
    under = dotted(path[:-1])
    place = f"keys under {under}" if under else "keys here"
    return f"{place}: {', '.join(known)}" if known else None, None


@cache
def _all_places(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(key_places(model))


def key_places(model: type[BaseModel], under: str = "") -> Iterator[str]:
    """Every dotted key below a model, outer ones first; `[]` stands for a list's index."""
    inner: list[tuple[type[BaseModel], str]] = []
    for name, kind in field_types(model).items():
        yield f"{under}{name}"
        for member in members(kind):
            item = item_type(member)
            child = as_model(item if item is not None else member)
            if child is not None:
                inner.append((child, f"{under}{name}{'[]' if item is not None else ''}."))
    for child, place in inner:
        yield from key_places(child, place)


def _same_letters(one: str, other: str) -> bool:
    return one.replace("_", "").lower() == other.replace("_", "").replace("-", "").lower()
