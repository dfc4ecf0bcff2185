"""Rules on timing and logging that slow training."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal, setting
from vdsgen.rules.rule import Change, Rule

CLOCK = "/wall_clock_breakdown"
PROFILER = "/flops_profiler/enabled"
PRINTING = "/steps_per_print"
STEPS_PER_PRINT = 100


def _clocks(facts: Facts) -> str | None:
    return "wall_clock_breakdown is true" if facts.monitoring.wall_clock_breakdown else None


def _profiles(facts: Facts) -> str | None:
    monitoring = facts.monitoring
    if not monitoring.flops_profiler or monitoring.wall_clock_breakdown:
        return None
    return "flops_profiler.enabled is true, which turns wall_clock_breakdown on for the whole run"


def _is_timed(facts: Facts) -> str | None:
    """By which key, where forward, backward and step are timed."""
    if facts.monitoring.wall_clock_breakdown:
        return "wall_clock_breakdown"
    return "flops_profiler.enabled" if facts.monitoring.flops_profiler else None


def _without_timing(facts: Facts) -> tuple[Change, ...]:
    profiled: tuple[Change, ...] = ((PROFILER, False),) if facts.monitoring.flops_profiler else ()
    return removal(CLOCK)(facts) + profiled


def _prints_at_a_step(facts: Facts) -> str | None:
    return "steps_per_print is 0" if facts.monitoring.steps_per_print == 0 else None


def _times_stages(facts: Facts) -> str | None:
    timed, stages = _is_timed(facts), facts.pipeline_parallel_size
    if timed is None or stages is None or stages < 2:
        return None
    return f"{timed} is true on {stages} pipeline stages"


def _prints_what_it_times(facts: Facts) -> str | None:
    timed = _is_timed(facts)
    if timed is None or not facts.is_pipeline or facts.monitoring.steps_per_print is not None:
        return None
    return f"{timed} is true in a pipeline, and steps_per_print is not set"


def _logs_communication(facts: Facts) -> str | None:
    return "comms_logger.enabled is true" if facts.monitoring.comms_logger else None


def _breaks_memory_down(facts: Facts) -> str | None:
    return "memory_breakdown is true" if facts.monitoring.memory_breakdown else None


RULES = (
    Rule(
        id="steps-per-print-zero",
        summary="Progress is printed every so many steps: 0 is no such number.",
        check=_prints_at_a_step,
        remedy="take steps_per_print out for no progress, or set it to 100",
        source="runtime/engine.py:3554",
        engine_message="modulo",
        keys=(PRINTING,),
        fix=removal(PRINTING),
        needs=("monitoring",),
    ),
    Rule(
        id="pipeline-stages-timed",
        summary=(
            "Two or more pipeline stages cannot be timed: a stage starts the clock of its backward, and the "
            "hook on its output starts it again."
        ),
        check=_times_stages,
        remedy="set wall_clock_breakdown and flops_profiler.enabled to false",
        source="runtime/engine.py:3125",
        engine_message="timer has already been started",
        keys=(CLOCK, PROFILER),
        fix=_without_timing,
        needs=("monitoring",),
    ),
    Rule(
        id="pipeline-timed-steps",
        summary="A pipeline that is timed divides the step's number by steps_per_print.",
        check=_prints_what_it_times,
        remedy="set steps_per_print",
        source="runtime/pipe/engine.py:1240",
        engine_message="unsupported operand type(s) for %",
        keys=(PRINTING, CLOCK, PROFILER),
        fix=setting(PRINTING, STEPS_PER_PRINT),
        needs=("monitoring",),
    ),
    Rule(
        id="wall-clock-breakdown",
        summary="Timing forward, backward and step makes the GPU wait at each of them.",
        check=_clocks,
        remedy="set wall_clock_breakdown to false once measured",
        source="utils/timer.py:40",
        severity="hurts",
        keys=(CLOCK,),
        fix=removal(CLOCK),
        needs=("monitoring",),
    ),
    Rule(
        id="flops-profiler-clock",
        summary="The FLOPS profiler turns wall_clock_breakdown on, not at its step only.",
        check=_profiles,
        remedy="set flops_profiler.enabled to false once measured",
        source="runtime/config.py:533",
        severity="overridden",
        keys=(PROFILER, CLOCK),
        fix=setting(PROFILER, False),
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
