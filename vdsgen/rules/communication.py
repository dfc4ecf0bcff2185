"""Rules on what travels between data-parallel ranks."""

from __future__ import annotations

from vdsgen.rules.rule import Facts, Rule
from vdsgen.spec.compression import refusal

VERSIONS = "0.19.8"


def _compressed_once_a_step(facts: Facts) -> str | None:
    if facts.gradient_compression is None or facts.zero_stage is None:
        return None
    offloaded = facts.offload_optimizer not in (None, "none")
    reason = refusal(facts.gradient_compression, facts.zero_stage, optimizer_is_offloaded=offloaded)
    return None if reason is None else f"{facts.gradient_compression} gradients: {reason}"


RULES = (
    Rule(
        id="compression-once-a-step",
        summary=(
            "The trainer compresses gradients that are reduced once a step: at ZeRO-0 and ZeRO-1, with the "
            "optimizer on the device."
        ),
        check=_compressed_once_a_step,
        remedy="use ZeRO-0 or ZeRO-1 without offload, or leave gradient_compression out",
        source="vdsgen/spec/compression.py",
        versions=VERSIONS,
    ),
)
