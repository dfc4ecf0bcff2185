from __future__ import annotations

import json

import pytest

from tests.ablate.results import MIB, ablation, entry, failed, ran
from vdsgen.ablate.records import Ablation, RefusedPlan, RunEnded
from vdsgen.ablate.report import Report, document, report_of
from vdsgen.ablate.report_text import text
from vdsgen.ablate.results import results_of

GOLDEN = """\
small on pool: 4 of 6 plans measured, 3 timed steps a run, 2 rounds

Measured, the fastest first
            samples/s  predicted   error  s/step  quartiles  data wait  peak MiB  predicted  error
  ! tuned           4          3       -       2        2-2      0.0 %     90.00     100.00      -
    wide            2          4  +100 %       4        4-4       12 %     90.00     100.00  +11 %
  * chosen       1.82          2   +10 %     4.4    4.3-4.6      0.0 %     90.00     100.00  +11 %
    deep            1          1  +0.0 %       8        8-8      0.0 %    125.00     100.00  -20 %

  - The planner's choice (*), chosen, reaches 91 % of the speed of the fastest that was measured.
  - Kendall's tau between predicted and measured speed: 1.00 over 3 plans.
  - Memory is off by -20 % at worst (stage 0 of deep).
  - ! ds_config.json was edited: what is predicted is the plan as it was.

What the measurements say of the time model
  - Measured over predicted: 1.15 for every part of a step.
  - Fitted: one factor.
  - Step times were off by 25 % (root mean square); with the factors by 22 %, 34 % at worst.
  - Each plan by factors fitted to the others: 29 %, 40 % at worst.
  - That is no better than without factors: no calibration is written.

Without a result
  - greedy: out of memory: error: rank 1 was killed
      last words
  - late: not run yet

Not run
  - grid: zero_stage=3: no pipeline with ZeRO-3
"""


def example() -> tuple[Ablation, list[RunEnded]]:
    plans = (
        entry("chosen", speed=2.0, planners_choice=True),
        entry("wide", speed=4.0),
        entry("deep", speed=1.0),
        entry("tuned", speed=3.0, edited=True),
        entry("greedy"),
        entry("late"),
    )
    journal = [
        ran("chosen", 1, 4.0, 4.2, 4.6),
        ran("wide", 1, 4.0, 4.0, 4.0, data_seconds=(0.5, 0.5, 0.5)),
        ran("deep", 1, 8.0, 8.0, 8.0, peak_memory_bytes_by_stage=(125 * MIB, 84 * MIB)),
        ran("tuned", 1, 2.0, 2.0, 2.0),
        failed("greedy", 1, "out_of_memory", "error: rank 1 was killed\nlast words"),
        ran("chosen", 2, 4.6, 4.6, 4.8),
    ]
    refused = (RefusedPlan(asked_for="grid: zero_stage=3", reason="no pipeline with ZeRO-3"),)
    return ablation(*plans, refused=refused), journal


def report() -> Report:
    made, journal = example()
    return report_of(made, results_of(made, journal))


def test_the_report_by_the_letter() -> None:
    assert text(report()) == GOLDEN


def test_the_document_says_the_same() -> None:
    found = json.loads(json.dumps(document(report()), allow_nan=False))
    assert [one["plan"]["name"] for one in found["ranked"]] == ["tuned", "wide", "chosen", "deep"]
    assert (found["kendall_tau"], found["chosen"]) == (1.0, "chosen")
    # 8 samples in 4.4 s beside 8 in 4 s; the edited plan is nobody's choice.
    assert found["chosen_share_of_best"] == pytest.approx(4 / 4.4)
    assert found["worst_memory_error"] == {"plan": "deep", "stage": 0, "relative": pytest.approx(-0.2)}
    assert [one["status"] for one in found["not_measured"]] == ["out_of_memory", "pending"]
    assert found["refused"] == [{"asked_for": "grid: zero_stage=3", "reason": "no pipeline with ZeRO-3"}]
    assert found["fit"]["plans"] == 3 and not found["fit"]["worth_using"]
    assert report().any_failed


def test_without_the_planners_choice_the_fastest_predicted_stands_for_it() -> None:
    made = ablation(entry("slow", speed=1.0), entry("fast", speed=3.0))
    found = report_of(made, results_of(made, [ran("slow", 1, 2.0), ran("fast", 1, 4.0)]))
    assert found.chosen is not None and found.chosen.name == "fast"
    assert found.chosen_share_of_best == 0.5
    assert found.tau == -1
    assert "What is predicted to be fastest, fast, reaches 50 % of the speed" in text(found)
    assert not found.any_failed


def test_nothing_measured_yet_is_a_report_too() -> None:
    made = ablation(entry("a"))
    found = report_of(made, results_of(made, []))
    assert text(found).endswith("Without a result\n  - a: not run yet\n")
    assert document(found)["kendall_tau"] is None and document(found)["fit"] is None
