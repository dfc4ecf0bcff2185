"""Rules on timing and logging that slow training."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal, setting
from vdsgen.rules.rule import Rule


def _clocks(facts: Facts) -> str | None:
    return "wall_clock_breakdown is true" if facts.monitoring.wall_clock_breakdown else None


def _profiles(facts: Facts) -> str | None:
    monitoring = facts.monitoring
    if not monitoring.flops_profiler or monitoring.wall_clock_breakdown:
        return None
    return "flops_profiler.enabled is true, which turns wall_clock_breakdown on for the whole run"


def _logs_communication(facts: Facts) -> str | None:
    return "comms_logger.enabled is true" if facts.monitoring.comms_logger else None


def _breaks_memory_down(facts: Facts) -> str | None:
    return "memory_breakdown is true" if facts.monitoring.memory_breakdown else None


RULES = (
    Rule(
        id="wall-clock-breakdown",
        summary="Timing forward, backward and step makes the GPU wait at each of them.",
        check=_clocks,
        remedy="set wall_clock_breakdown to false once measured",
        source="utils/timer.py:40",
        severity="hurts",
        keys=("/wall_clock_breakdown",),
        fix=removal("/wall_clock_breakdown"),
        needs=("monitoring",),
    ),
    Rule(
        id="flops-profiler-clock",
        summary="The FLOPS profiler turns wall_clock_breakdown on, not at its step only.",
        check=_profiles,
        remedy="set flops_profiler.enabled to false once measured",
        source="runtime/config.py:533",
        severity="overridden",
        keys=("/flops_profiler/enabled", "/wall_clock_breakdown"),
        fix=setting("/flops_profiler/enabled", False),
        needs=("monitoring",),
    ),
    Rule(
        id="comms-logger",
        summary="Logging collectives makes each of them blocking.",
        check=_logs_communication,
        remedy="set comms_logger.enabled to false once measured",
        source="comm/comm.py:132",
        severity="hurts",
        keys=("/comms_logger/enabled",),
        fix=setting("/comms_logger/enabled", False),
        needs=("monitoring",),
    ),
    Rule(
        id="memory-breakdown",
        summary="Breaking memory down reads the allocator's figures and collects garbage around every pass.",
        check=_breaks_memory_down,
        remedy="set memory_breakdown to false once measured",
        source="runtime/utils.py:834",
        severity="hurts",
        keys=("/memory_breakdown",),
        fix=removal("/memory_breakdown"),
        needs=("monitoring",),
    ),
)
