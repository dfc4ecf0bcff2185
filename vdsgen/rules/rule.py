"""What a rule is, and the facts it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from vdsgen.spec.experiment import Dtype
from vdsgen.spec.plan import GradientCompression, Offload


class Facts(NamedTuple):
    """A configuration as rules see it, whoever made it. None: not known, and rules that need it pass."""

    world_size: int | None = None
    pipeline_parallel_size: int | None = None
    data_parallel_size: int | None = None
    global_batch_size: int | None = None
    micro_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    zero_stage: int | None = None
    allgather_bucket_elements: int | None = None
    activation_checkpoint_interval: int | None = None
    """Layers a segment; 0 for none."""
    fp16_enabled: bool | None = None
    bf16_enabled: bool | None = None
    gradient_accumulation_dtype: Dtype | None = None
    gpu: str | None = None
    """What messages call the GPU."""
    gpu_has_fp16: bool | None = None
    gpu_has_bf16: bool | None = None
    blocks: int | None = None
    """Blocks of the whole model."""
    stage_blocks: tuple[int, ...] | None = None
    """Blocks of each pipeline stage."""
    gradient_compression: GradientCompression | None = None
    """Of the trainer's own."""
    offload_optimizer: Offload | None = None

    @property
    def dtype(self) -> Dtype | None:
        """The model's dtype; None where it is not known or contradictory."""
        if self.fp16_enabled is None or self.bf16_enabled is None:
            return None
        if self.fp16_enabled and self.bf16_enabled:
            return None
        return "fp16" if self.fp16_enabled else "bf16" if self.bf16_enabled else "fp32"


Check = Callable[[Facts], str | None]
"""The violation as one sentence with the actual values of both sides; None where the rule holds."""


class Rule(NamedTuple):
    """One thing that a configuration must obey."""

    id: str
    """Lower-case words joined by hyphens; what plans, lint findings and docs call it."""
    summary: str
    """The rule in one sentence, for the docs."""
    check: Check
    remedy: str
    source: str
    """Where it comes from: a file and line of the engine under `deepspeed/`, or of this project."""
    versions: str
    """Releases of DeepSpeed that the source was read in."""
    engine_message: str | None = None
    """Part of what the engine raises; None where it raises nothing (the rule says why it matters then)."""


class Violation(NamedTuple):
    """A rule that a configuration breaks."""

    rule: Rule
    message: str

    def __str__(self) -> str:
        return f"{self.message} [{self.rule.id}]\n  -> {self.rule.remedy}"


def violations(facts: Facts, rules: Iterable[Rule]) -> list[Violation]:
    """All rules that `facts` break, in the order of `rules`."""
    found = []
    for rule in rules:
        message = rule.check(facts)
        if message is not None:
            found.append(Violation(rule, message))
    return found
