from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vdsgen.model.curves import draw_loss, first_and_last, smoothed
from vdsgen.model.metrics import (
    NON_FINITE_LIMIT,
    DivergedError,
    DivergenceAlarm,
    MetricsFile,
    StepMetrics,
    read_metrics,
)


def metrics(step: int, loss: float = 0.5, **changes: Any) -> StepMetrics:
    values: dict[str, Any] = {
        "step": step,
        "loss": loss,
        "grad_norm": 1.5,
        "loss_scale": 1.0,
        "learning_rate": 1e-4,
        "step_seconds": 2.0,
        "data_seconds": 0.1,
        "samples_per_second": 4.0,
        "peak_memory_bytes": [1, 2],
    }
    return StepMetrics(**(values | changes))


def test_lines_are_json_even_where_numbers_are_not_finite(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, resumed_step=0)
    file.append(metrics(1, math.nan, grad_norm=math.inf))
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert line["loss"] is None
    assert line["grad_norm"] is None
    file.close()


def test_a_line_is_there_before_the_next_step(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, resumed_step=0)
    file.append(metrics(1))
    assert [m["step"] for m in read_metrics(tmp_path)] == [1]
    file.close()


def test_resuming_drops_what_lies_past_the_checkpoint(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, resumed_step=0)
    for step in range(1, 6):
        file.append(metrics(step, loss=0.1 * step))
    file.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    before = read_metrics(tmp_path)
    resumed = MetricsFile(tmp_path, resumed_step=3)
    assert read_metrics(tmp_path) == before[:3]
    resumed.append(metrics(4))
    resumed.close()
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_the_alarm_ends_a_run_that_cannot_recover() -> None:
    alarm = DivergenceAlarm()
    assert alarm.check(metrics(1)) is None
    for step in range(2, 1 + NON_FINITE_LIMIT):
        assert f"step {step}: the loss is nan" in str(alarm.check(metrics(step, math.nan)))
    with pytest.raises(DivergedError, match=f"{NON_FINITE_LIMIT}th step in a row") as caught:
        alarm.check(metrics(9, math.inf))
    assert caught.value.exit_code == 4


def test_a_finite_loss_calms_the_alarm() -> None:
    alarm = DivergenceAlarm()
    for round_ in range(3):
        for step in range(NON_FINITE_LIMIT - 1):
            assert alarm.check(metrics(10 * round_ + step, math.nan))
        assert alarm.check(metrics(10 * round_ + 9)) is None


def test_first_and_last_are_means_over_a_tenth() -> None:
    assert first_and_last([4.0]) == (4.0, 4.0)
    assert first_and_last([3.0, 1.0]) == (3.0, 1.0)
    assert first_and_last([1.0, 3.0] + [0.0] * 16 + [5.0, 9.0]) == (2.0, 7.0)


def test_smoothing_is_a_running_mean() -> None:
    losses = [float(index % 7) for index in range(40)]
    expected = [sum(losses[max(0, i - 3) : i + 1]) / len(losses[max(0, i - 3) : i + 1]) for i in range(40)]
    assert smoothed(losses) == pytest.approx(expected)


@pytest.mark.parametrize("losses", [[], [1.0], [math.nan, 0.5], [100.0, 1.0, 0.01]])
def test_any_run_has_a_picture(tmp_path: Path, losses: list[float]) -> None:
    file = MetricsFile(tmp_path, resumed_step=0)
    for step, loss in enumerate(losses, start=1):
        file.append(metrics(step, loss))
    file.close()
    draw_loss(tmp_path)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_size_of_a_steps_clips_is_told_where_there_are_several(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, resumed_step=0)
    file.append(metrics(1))
    file.append(metrics(2, bucket="49 x 480 x 720"))
    file.close()
    alone, several = read_metrics(tmp_path)
    assert "bucket" not in alone
    assert several["bucket"] == "49 x 480 x 720"
