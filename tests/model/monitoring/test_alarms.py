from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.model.monitoring.alarms import (
    RECENT_STEPS,
    Alarm,
    AlarmFile,
    GradientDrift,
    LayerShares,
    LossSpike,
    MemoryLeak,
    Place,
    VanishingScale,
    read_alarms,
)
from vdsgen.model.monitoring.robust import median_and_deviation, theil_sen

BLOCK = Place(layer=3, name="Block", stage=1, rank=2)
MIB = 2**20


def noisy(steps: int, level: float = 0.5, spread: float = 0.1, seed: int = 0) -> list[float]:
    """As a diffusion loss is: it scatters with the timesteps drawn."""
    draw = random.Random(seed)
    return [abs(draw.gauss(level, spread)) for _ in range(steps)]


def test_a_spike_is_told_once_with_step_layer_and_remedy() -> None:
    spike = LossSpike(deviations=12, window=100)
    assert all(spike.check(step, loss, None) is None for step, loss in enumerate(noisy(60), start=1))
    alarm = spike.check(61, 5.0, BLOCK)
    assert alarm is not None
    assert alarm.sentence().startswith("step 61: the loss jumped to 5, ")
    assert "x its median over 60 steps" in alarm.message
    assert "layer 3 (Block), stage 1, rank 2" in alarm.message
    assert "learning_rate" in alarm.remedy
    assert spike.check(62, 5.0, BLOCK) is None, "the same spike, one step later"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), level=st.floats(0.01, 100))
def test_the_scatter_of_a_loss_is_no_spike(seed: int, level: float) -> None:
    spike = LossSpike(deviations=12, window=100)
    losses = noisy(300, level, 0.25 * level, seed)
    assert [spike.check(step, loss, None) for step, loss in enumerate(losses)] == [None] * 300


def test_a_loss_that_falls_fast_is_no_spike_when_it_halts() -> None:
    spike = LossSpike(deviations=12, window=100)
    losses = [2.0 * 0.9**step + 0.1 for step in range(100)] + [0.14] * 20
    assert not any(spike.check(step, loss, None) for step, loss in enumerate(losses))


def test_the_scale_alarms_at_its_minimum_and_after_halvings_without_growth() -> None:
    alarm = VanishingScale(halvings=3, minimum=1)
    scales = [512, 256, 512, 256, 128, 128, 64, 32]
    found = [alarm.check(step, scale, BLOCK) for step, scale in enumerate(scales)]
    assert [step for step, alarm in enumerate(found) if alarm] == [6]
    assert found[6] is not None and "halved 3 times without growing once" in found[6].message
    assert "last by layer 3 (Block), stage 1, rank 2" in found[6].message
    at_minimum = [alarm.check(step, scale, None) for step, scale in enumerate([2, 1, 1], start=8)]
    assert [bool(alarm) for alarm in at_minimum] == [True, True, False]
    assert at_minimum[1] is not None and "1, its minimum" in at_minimum[1].message


def test_a_slow_drift_of_the_gradient_norm_is_told_once() -> None:
    drift = GradientDrift(factor=4, window=300)
    norms = [norm * 1.01**step for step, norm in enumerate(noisy(400, 1.0, 0.2))]
    alarms = [alarm for step, norm in enumerate(norms) if (alarm := drift.check(step, norm, BLOCK))]
    assert len(alarms) == 1
    assert "has drifted to" in alarms[0].message and "layer 3 (Block)" in alarms[0].message
    assert alarms[0].value is not None and alarms[0].value > 4


def test_a_single_large_gradient_is_no_drift() -> None:
    drift = GradientDrift(factor=4, window=300)
    norms = noisy(300, 1.0, 0.2)
    norms[200] = 1e6
    norms[210] = math.inf
    assert not any(drift.check(step, norm, None) for step, norm in enumerate(norms))


def test_a_leak_is_named_with_its_rank_its_rate_and_what_is_left() -> None:
    leak = MemoryLeak(rank=5, window=64, least_bytes_per_step=64 * 1024, last_step=1000)
    draw = random.Random(1)
    held = [1000 * MIB + step * MIB // 2 + draw.randrange(-MIB, MIB) for step in range(200)]
    alarms = [a for step, value in enumerate(held, 1) if (a := leak.check(step, value, 100 * MIB))]
    assert len(alarms) == 1, "it is quiet for a while"
    assert alarms[0].step == 64
    assert alarms[0].rank == 5
    assert alarms[0].value == pytest.approx(MIB / 2, rel=0.1)
    assert "memory held by rank 5 grows by 0.5" in alarms[0].message
    assert "out of memory in about" in alarms[0].message


@pytest.mark.parametrize(
    "held",
    [
        [1000 * MIB + random.Random(2).randrange(50 * MIB) for _ in range(300)],
        # A heap that grows by ever less, as the demo's does in its first sixty steps.
        [1000 * MIB + int(60 * MIB * (1 - 0.85**step)) for step in range(300)],
        # The heap settles after the first steps.
        [1000 * MIB + 200 * MIB * min(step, 20) // 20 for step in range(300)],
        # Buckets take turns.
        [1000 * MIB + (step % 2) * 300 * MIB for step in range(300)],
        # Up by one jump.
        [1000 * MIB + (step > 150) * 500 * MIB for step in range(300)],
        [1000 * MIB + step * 1024 for step in range(300)],
    ],
)
def test_other_courses_of_memory_are_no_leak(held: list[int]) -> None:
    leak = MemoryLeak(rank=0, window=64, least_bytes_per_step=64 * 1024, last_step=10**9)
    # What is held from the first steps on belongs to the warm-up.
    assert not any(leak.check(step, value, 1000 * MIB) for step, value in enumerate(held, 1))


def test_a_leak_that_outlasts_no_run_is_not_told() -> None:
    held = [1000 * MIB + step * MIB // 2 for step in range(200)]
    short, long = (MemoryLeak(0, 64, 64 * 1024, last_step) for last_step in (300, 3000))
    assert not any(short.check(step, value, 1000 * MIB) for step, value in enumerate(held, 1))
    assert any(long.check(step, value, 1000 * MIB) for step, value in enumerate(held, 1))


def test_the_loudest_layer_is_the_one_whose_share_grew_most() -> None:
    shares = LayerShares()
    for _ in range(RECENT_STEPS):
        assert shares.loudest([10.0, 1.0, 1.0, 1.0]) == (0, pytest.approx(10 / 13))  # type: ignore[comparison-overlap]
    assert shares.loudest([10.0, 1.0, 8.0, 1.0]) == (2, pytest.approx(0.4))  # type: ignore[comparison-overlap]
    # A layer with next to no gradient is not loud, however much it grew.
    assert shares.loudest([10.0, 1.2, 1.0, 1.0]) is not None
    assert shares.loudest([0.0, 0.0, 0.0, 0.0]) is None
    assert shares.loudest([math.inf, 1.0, 1.0, 1.0]) is None


def test_the_file_holds_every_alarm_as_json_and_a_resumed_run_drops_the_later_ones(tmp_path: Path) -> None:
    file = AlarmFile(tmp_path, resumed_step=0)
    assert not (tmp_path / "alarms.jsonl").exists(), "nothing to warn of, no file"
    file.append(Alarm("loss_spike", 3, "step 3: up", "look", 1.5, BLOCK))
    file.append(Alarm("not_finite", 7, "step 7: nan", "look", math.nan))
    lines = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "kind": "loss_spike",
        "step": 3,
        "message": "step 3: up",
        "remedy": "look",
        "value": 1.5,
        "rank": 2,
        "layer": 3,
        "stage": 1,
        "layer_name": "Block",
    }
    assert lines[1]["value"] is None and lines[1]["layer"] is None
    AlarmFile(tmp_path, resumed_step=5)
    assert [alarm["step"] for alarm in read_alarms(tmp_path)] == [3]


def test_theil_sen_is_not_moved_by_a_quarter_of_wild_values() -> None:
    values = [3.0 * place for place in range(40)]
    for place in range(0, 40, 4):
        values[place] = 1e6
    slope, agreement = theil_sen(values)
    assert slope == pytest.approx(3, abs=0.5)
    assert agreement > 0.6
    assert theil_sen([1.0, 2.0, 3.0]) == (1.0, 1.0)
    assert median_and_deviation([1.0, 2.0, 3.0, 100.0])[0] == 2.5
