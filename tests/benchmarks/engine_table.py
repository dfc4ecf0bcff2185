"""Predicted beside measured bytes of every engine mode, as Markdown.

    python -m tests.benchmarks.engine_table

Writes what follows the marker in docs/engine.md, from the measurements that
`python -m tests.benchmarks.engine_matrix` wrote and from today's predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cost.matrix_cases import MatrixCase, matrix
from tests.cost.matrix_predictions import (
    Compared,
    allowed,
    checks_overflow_on_host,
    compared,
    has_a_device,
    measurements,
)
from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.settings import Settings
from vdsgen.files import write_atomically

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"
MARKER = "<!-- What follows is written by: python -m tests.benchmarks.engine_table -->\n"


def main() -> None:
    write_atomically(PAGE, page(PAGE.read_text()).encode())


def page(text: str) -> str:
    """The page, its tables made anew."""
    head, marker, _ = text.partition(MARKER)
    assert marker, f"{PAGE.name} has lost its marker"
    return head + marker + "\n" + "\n".join(tables())


class Pair(NamedTuple):
    """One quantity of one stage; None where this processor cannot show it."""

    predicted: int
    measured: int

    @property
    def error(self) -> float:
        if self.measured == 0:
            return 0.0 if self.predicted == 0 else float("inf")
        return self.predicted / self.measured - 1

    def __str__(self) -> str:
        if self.measured == 0 == self.predicted:
            return "0"
        return f"{self.predicted / 1e3:.0f} / {self.measured / 1e3:.0f} ({100 * self.error:+.1f} %)"


QUANTITIES = ("states", "running", "step", "peak", "host")


def pairs(one: Compared) -> dict[str, Pair | None]:
    """By quantity."""
    ours, real, settings = one.predicted, one.measured, one.case.settings
    device = has_a_device(settings)
    step = device and not checks_overflow_on_host(settings)
    return {
        "states": Pair(ours.states, real.states) if device else None,
        "running": Pair(ours.running, real.running) if device else None,
        "step": Pair(ours.step_peak, real.step_peak) if step else None,
        "peak": Pair(ours.peak, real.peak) if device else None,
        "host": Pair(ours.host, real.host),
    }


def tables() -> Iterator[str]:
    """Lines of the page below its marker."""
    found = list(compared())
    releases = measurements()["releases"]
    yield f"DeepSpeed {releases['deepspeed']}, torch {releases['torch']}. {len(found)} stages of "
    modes = len({one.case.name for one in found})
    yield f"{modes} modes. Largest error by ZeRO stage and offload, per cent:\n"
    yield from table(("ZeRO", "offload", "stages", *HEADINGS), summary_rows(found))
    yield "\nWhat is refused, and what for (of one precision and interval each):\n"
    yield from table(("mode", "the engine", "predicted by"), refused_rows())
    yield "\nEvery mode; of its stages the one whose peak is predicted worst. kB, predicted / measured.\n"
    yield from table(("layout", "ZeRO", "precision", "interval", "offload", *HEADINGS), case_rows(found))
    yield ""


HEADINGS = ("states", "activations and buckets", "step's peak", "peak", "host")


def summary_rows(found: Sequence[Compared]) -> Iterator[tuple[str, ...]]:
    groups: dict[tuple[str, str], list[Compared]] = {}
    for one in found:
        settings = one.case.settings
        groups.setdefault((str(settings.zero_stage), offload(settings)), []).append(one)
    for (stage, what), members in sorted(groups.items()):
        worst = []
        for name in QUANTITIES:
            known = [pair for pair in (pairs(one)[name] for one in members) if pair is not None]
            worst.append(f"{100 * max((pair.error for pair in known), key=abs):+.1f}" if known else "")
        yield (stage, what, str(len(members)), *worst)


def refused_rows() -> Iterator[tuple[str, ...]]:
    for case in matrix():
        if not allowed(case.settings):
            answer = measurements()["cases"][case.name]
            engine = answer.get("refused", "takes it, and keeps what it would keep without")
            yield (case.name, engine, f"`engine_optimizer`: {refusal(case)}")


def refusal(case: MatrixCase) -> str:
    try:
        engine_optimizer(case.settings)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{case.name} is allowed")


def case_rows(found: Sequence[Compared]) -> Iterator[tuple[str, ...]]:
    cases: dict[str, list[Compared]] = {}
    for one in found:
        cases.setdefault(one.case.name, []).append(one)
    for members in cases.values():
        worst = max(members, key=lambda one: abs((pairs(one)["peak"] or Pair(0, 0)).error))
        settings = worst.case.settings
        shown = (pairs(worst)[name] for name in QUANTITIES)
        yield (
            f"{settings.pipeline_parallel_size} x {settings.data_parallel_size}",
            str(settings.zero_stage),
            precision(settings),
            str(settings.activation_checkpoint_interval),
            offload(settings),
            *("" if pair is None else str(pair) for pair in shown),
        )


def precision(settings: Settings) -> str:
    sums = settings.gradient_accumulation_dtype
    return settings.dtype if sums == settings.dtype else f"{settings.dtype}, sums in {sums}"


def offload(settings: Settings) -> str:
    if settings.offload_optimizer == "none":
        return "none"
    return "optimizer" if settings.offload_parameters == "none" else "optimizer, parameters"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    main()
