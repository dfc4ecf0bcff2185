"""Whether a run may go on under another plan, and what is then not as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from vdsgen.errors import VdsgenError
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.run import layout_of
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

OFFLOAD_DEVICE = "zero_optimization.offload_optimizer.device"
ROUND_ROBIN = "zero_optimization.round_robin_gradients"
SUB_GROUP = "zero_optimization.sub_group_size"
DEFAULT_SUB_GROUP_ELEMENTS = 1_000_000_000
"""DeepSpeed 0.19.8, runtime/zero/config.py."""


class Side(Protocol):
    """What is compared of a rendered directory."""

    @property
    def experiment(self) -> Experiment: ...
    @property
    def ds_config(self) -> Mapping[str, Any]: ...


class Refusal(NamedTuple):
    """A key that cannot change within a run."""

    file: str
    key: str
    old: Any
    new: Any
    why: str


def refusals(before: Side, now: Side) -> list[Refusal]:
    """What makes `now` another run than `before`; empty where it can go on."""
    changed = _changes(before.experiment, now.experiment)
    found = [
        Refusal("train.yaml", key, old, new, why)
        for key, (old, new) in changed
        for above, why in ANOTHER_RUN.items()
        if _is_below(key, above)
    ]
    sizes = [side.ds_config["train_batch_size"] for side in (before, now)]
    if not found and sizes[0] != sizes[1]:
        why = ANOTHER_RUN["training.global_batch_size"]
        found = [Refusal("ds_config.json", "train_batch_size", sizes[0], sizes[1], why)]
    return found


def check_continues(before: Rendered, now: Rendered) -> list[str]:
    """Sentences on what differs and goes on otherwise from here. Raises VdsgenError where the run cannot be
    continued under the new plan: it would be another one."""
    refused = refusals(before, now)
    if refused:
        lines = "\n".join(
            f"  {one.key} was {_shown(one.old)}, is {_shown(one.new)}: {one.why}" for one in refused
        )
        raise VdsgenError(
            f"{now.path} does not continue the run that {before.path} is of:\n{lines}",
            remedy="put these back, or start another run: a new --output, with training.start_from",
        )
    sentences = [
        f"{key} was {_shown(old)}, is {_shown(new)} from here on"
        for key, (old, new) in _changes(before.experiment, now.experiment)
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


def needs_conversion(before: Side | None, now: Side) -> bool:
    """Of two with the same layout: whether DeepSpeed nevertheless builds another optimizer around the model,
    or in other memory, which does not read the checkpoint as it is."""
    return before is not None and _engine_sections(before.ds_config) != _engine_sections(now.ds_config)


def converting_keys(before: Side, now: Side) -> list[str]:
    """`FILE:key` of all that makes a checkpoint be converted: another layout, or what `needs_conversion`
    sees. Raises VdsgenError where a ds_config.json says no layout."""
    layouts = [layout_of(side.ds_config).model_dump() for side in (before, now)]
    keys = [key for name, key in LAYOUT_KEYS.items() if layouts[0][name] != layouts[1][name]]
    sections = [_engine_sections(side.ds_config) for side in (before, now)]
    keys += [key for key, value in sections[0].items() if sections[1][key] != value and key not in keys]
    return [f"ds_config.json:{key}" if ":" not in key else key for key in keys]


LAYOUT_KEYS = {
    "pipeline_parallel_size": "pipeline.stages",
    "data_parallel_size": "plan.json:parallel.data_parallel_size",
    "zero_stage": "zero_optimization.stage",
    "partition": "pipeline.partition",
    "dtype": "plan.json:precision.dtype",
    "tensor_parallel_size": "pipeline.tensor_parallel_size",
    "sequence_parallel_size": "pipeline.sequence_parallel_size",
}
"""Fields of a layout, and the keys that people change them by."""


def _engine_sections(ds_config: Mapping[str, Any]) -> dict[str, Any]:
    zero = ds_config.get("zero_optimization") or {}
    return {
        "zero_optimization.stage": zero.get("stage", 0),
        OFFLOAD_DEVICE: (zero.get("offload_optimizer") or {}).get("device", "none"),
        # Parameters lie otherwise: dealt out to ranks in turn, or in groups of another size.
        ROUND_ROBIN: bool(zero.get("round_robin_gradients", False)),
        SUB_GROUP: zero.get("sub_group_size", DEFAULT_SUB_GROUP_ELEMENTS) if zero.get("stage") == 3 else None,
        "data_types.grad_accum_dtype": (ds_config.get("data_types") or {}).get("grad_accum_dtype"),
        "vdsgen.optimizer_state_dtype": quantises_moments(ds_config),
    }


def never_converted(before: Side, now: Side) -> tuple[str, str] | None:
    """The key that keeps a checkpoint of `before` from being converted for `now`, whatever differs, and why;
    None where it can be."""
    if _engine_sections(before.ds_config)[ROUND_ROBIN]:
        return ROUND_ROBIN, "round_robin_gradients makes DeepSpeed write wrong places of parameters"
    if _on_flash(before, now):
        return OFFLOAD_DEVICE, "states that are offloaded to NVMe are not converted for another layout"
    return None


def _on_flash(before: Side, now: Side) -> bool:
    return "nvme" in [_engine_sections(side.ds_config)[OFFLOAD_DEVICE] for side in (before, now)]


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
