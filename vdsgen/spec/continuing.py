"""Whether a run may go on under another plan, and what is then not as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vdsgen.errors import VdsgenError
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.trainer_section import quantises_moments

ANOTHER_RUN = {
    "model": "the checkpoint's weights are another model's",
    "training.method": "the checkpoint trains other weights",
    "training.lora": "the checkpoint trains other weights",
    "training.global_batch_size": "steps would see other clips than theirs",
    "training.seed": "clips would come in another order, with other noise",
}
"""Keys of an experiment (with all below them) that cannot change within a run, and why."""
NO_MATTER = (
    "name", "objective", "constraints", "training.precision", "training.saving", "training.sampling",
    "training.monitoring", "training.alarms", "training.validation", "training.start_from", "data.workers",
    "data.prefetch", "data.clips",
)  # fmt: skip
"""Keys that change nothing of what is trained, or are compared where they have become figures."""


def check_continues(before: Rendered, now: Rendered) -> list[str]:
    """Sentences on what differs and goes on otherwise from here. Raises VdsgenError where the run cannot be
    continued under the new plan: it would be another one."""
    changed = dict(_changes(before.experiment, now.experiment))
    refused = [
        f"{key} was {_shown(old)}, is {_shown(new)}: {why}"
        for key, (old, new) in changed.items()
        for above, why in ANOTHER_RUN.items()
        if _is_below(key, above)
    ]
    sizes = [side.ds_config["train_batch_size"] for side in (before, now)]
    if not refused and sizes[0] != sizes[1]:
        why = ANOTHER_RUN["training.global_batch_size"]
        refused = [f"train_batch_size was {sizes[0]}, is {sizes[1]}: {why}"]
    if refused:
        lines = "\n".join(f"  {sentence}" for sentence in refused)
        raise VdsgenError(
            f"{now.path} does not continue the run that {before.path} is of:\n{lines}",
            remedy="put these back, or start another run: a new --output, with training.start_from",
        )
    sentences = [
        f"{key} was {_shown(old)}, is {_shown(new)} from here on"
        for key, (old, new) in changed.items()
        if not any(_is_below(key, above) for above in NO_MATTER)
    ]
    return sentences + list(_of_engines(before, now))


def _of_engines(before: Rendered, now: Rendered) -> Iterator[str]:
    old, new = before.layout.dtype, now.layout.dtype
    if old != new:
        yield f"it computes in {new} from here on, not in {old}: losses go on to its rounding"
    quantised = [quantises_moments(side.ds_config) for side in (before, now)]
    if quantised == [True, True] and before.layout != now.layout:
        yield "AdamW's int8 moments are rounded once more, in other blocks"
    elif quantised[0] != quantised[1]:
        yield "AdamW's moments are rounded to int8" if quantised[1] else "AdamW's int8 moments become fp32"


def needs_conversion(before: Rendered | None, now: Rendered) -> bool:
    """Of two with the same layout: whether DeepSpeed nevertheless builds another optimizer around the model,
    or in other memory, which does not read the checkpoint as it is."""
    return before is not None and _engine_sections(before.ds_config) != _engine_sections(now.ds_config)


def _engine_sections(ds_config: Mapping[str, Any]) -> tuple[Any, ...]:
    zero = ds_config.get("zero_optimization") or {}
    return (
        zero.get("stage", 0),
        (zero.get("offload_optimizer") or {}).get("device", "none"),
        (ds_config.get("data_types") or {}).get("grad_accum_dtype"),
        quantises_moments(ds_config),
    )


def _changes(old: Experiment, new: Experiment) -> Iterator[tuple[str, tuple[Any, Any]]]:
    before, after = (dict(_flat(side.model_dump(mode="json"))) for side in (old, new))
    for key in before.keys() | after.keys():
        pair = before.get(key), after.get(key)
        if pair[0] != pair[1]:
            yield key, pair


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _is_below(key: str, above: str) -> bool:
    return key == above or key.startswith(f"{above}.")


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
