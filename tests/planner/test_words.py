"""Settings in words: everything that is on is said, nothing that is off."""

from __future__ import annotations

import pytest

from tests.planner.examples import experiment, pool, profile
from vdsgen.cost.settings import Settings
from vdsgen.planner.plan import make_plan
from vdsgen.planner.plan_settings import sections_of
from vdsgen.planner.tables import choice_table
from vdsgen.planner.text import ranking_text
from vdsgen.planner.words import changed_words, checkpoint_words, settings_words

PLAIN = Settings(2, 4, 1, 1, 8, 3, "bf16", "fp32", 1000, 1000)
ALL_ON = PLAIN._replace(
    zero_stage=3,
    tensor_parallel_size=2,
    sequence_parallel_size=4,
    stage_checkpoint_intervals=(3, 0),
    stage_plain_layers=(2, 0),
    stage_selective_layers=(4, 0),
    offload_activations=True,
    offload_optimizer="cpu",
    offload_parameters="nvme",
    communication_dtype="fp32",
    gradient_compression="int8",
    zero_quantized_weights=True,
    zero_quantized_gradients=True,
    hierarchical_partition_size=8,
)


def test_what_is_off_is_not_said() -> None:
    assert settings_words(PLAIN) == (
        "pipeline 2 x data 4, ZeRO-1, micro-batch 1 x 8 steps, checkpoint every 3 blocks, bf16"
    )


def test_what_is_on_is_said() -> None:
    assert settings_words(ALL_ON) == (
        "pipeline 2 x data 4 x tensor 2 x sequence 4, ZeRO-3, micro-batch 1 x 8 steps, checkpoint every 3 "
        "blocks on stage 0, no checkpointing on stage 1 but in the last 2/0 layers, products kept in the "
        "4/0 layers before, bf16, optimizer states in host memory, parameters on NVMe, checkpointed "
        "activations in host memory, gradients reduced in fp32, gradients sent as int8, weights gathered as "
        "int8, gradients reduced as int4, parameters held once more by every 8 ranks"
    )


def test_layers_that_are_not_checkpointed_are_counted_from_the_last() -> None:
    words = [checkpoint_words(PLAIN.with_interval(1, count)) for count in (1, 12)]
    assert words == [f"checkpoint every block but in the last {last}" for last in ("1 layer", "12 layers")]


def test_layers_that_keep_their_products_are_counted_before_those() -> None:
    words = [checkpoint_words(PLAIN.with_interval(1, plain, kept)) for plain, kept in ((0, 5), (2, 1))]
    assert words == [
        "checkpoint every block, products kept in the last 5 layers",
        "checkpoint every block but in the last 2 layers, products kept in the 1 layer before",
    ]


def test_packed_activations_are_said_with_the_interval() -> None:
    packed = PLAIN._replace(activation_compression="int8")
    assert checkpoint_words(packed) == "checkpoint every 3 blocks, packed as int8"


def test_equal_intervals_of_all_stages_are_one() -> None:
    assert checkpoint_words(PLAIN._replace(stage_checkpoint_intervals=(2, 2))) == "checkpoint every 2 blocks"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "the same settings"),
        ({"zero_stage": 0, "dtype": "fp16"}, "ZeRO-0, fp16"),
        ({"micro_batch_size": 2}, "micro-batch 2 x 8 steps"),
        ({"activation_checkpoint_interval": 0}, "no checkpointing"),
        ({"offload_optimizer": "cpu"}, "optimizer states in host memory"),
    ],
)
def test_a_change_is_said_both_ways(change: dict[str, object], words: str) -> None:
    other = Settings(**(PLAIN._asdict() | change))
    assert changed_words(PLAIN, other) == words
    if "offload_optimizer" in change:
        assert changed_words(other, PLAIN) == "nothing offloaded"


def test_every_setting_that_differs_is_told() -> None:
    """Buckets and the accumulation dtype aside, which follow from the rest."""
    follows = {"reduce_bucket_elements", "allgather_bucket_elements", "gradient_accumulation_dtype"}
    for name in set(Settings._fields) - follows:
        one = PLAIN._replace(**{name: getattr(ALL_ON, name)})
        if one == PLAIN:
            continue
        assert changed_words(PLAIN, one) != "the same settings", name


def test_tables_show_what_is_on() -> None:
    given = experiment(12, 1024)
    plan = make_plan(given, pool(4, 7.0), profile(12, 1024))
    other = plan.model_copy(update=sections_of(ALL_ON, given.training))
    cells = {row[0]: row[1] for row in choice_table(other).rows}
    assert cells["tensor parallel ranks"] == "2" and cells["sequence parallel ranks"] == "4"
    assert cells["offload"] == (
        "optimizer states in host memory, parameters on NVMe, checkpointed activations in host memory"
    )
    assert "int8" in cells["communication"]
    assert {"offload", "communication", "tensor parallel ranks"}.isdisjoint(
        row[0] for row in choice_table(plan).rows
    )
    text = ranking_text([plan, other])
    assert (
        "tensor 2 x sequence 4" in text
        and "3/none, last 4/0 selective, last 2/0 plain" in text
        and "on NVMe" in text
    )
    assert "shared" not in ranking_text([plan, plan])
