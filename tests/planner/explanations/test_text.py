"""Explanations as people read them."""

from __future__ import annotations

from tests.planner.examples import experiment, profile
from tests.planner.explanations.cases import case
from vdsgen.planner.explanations.explained import explained
from vdsgen.planner.explanations.tables import (
    binding_sentences,
    binding_title,
    component_table,
    miss_sentences,
    purchase_table,
    scaling_sentences,
    waterfall_table,
)
from vdsgen.planner.text import columns, explanations_text, plan_text
from vdsgen.spec.canonical import canonical_json
from vdsgen.spec.explanations import (
    Binding,
    Explanations,
    LossSplit,
    Mend,
    NearestMiss,
    Purchase,
    ScalePoint,
    Scaling,
    Waterfall,
    WaterfallStep,
)
from vdsgen.spec.plan import Plan

GIB = 1024**3
FALL = Waterfall(
    naive_bytes=40 * GIB,
    naive_by_component={"optimizer": 20 * GIB, "activations": 20 * GIB},
    naive_step_seconds=2.0,
    steps=(
        WaterfallStep(
            measure="sharding (ZeRO)",
            saved_bytes=15 * GIB,
            saved_by_component={"optimizer": 15 * GIB},
            peak_bytes=25 * GIB,
            step_seconds=2.1,
        ),
        WaterfallStep(
            measure="micro-batch",
            saved_bytes=-5 * GIB,
            saved_by_component={"activations": -5 * GIB},
            peak_bytes=30 * GIB,
            step_seconds=1.9,
        ),
    ),
    plan_bytes=30 * GIB,
    plan_by_component={"optimizer": 5 * GIB, "activations": 25 * GIB},
    saved_fraction=0.25,
)


def test_a_waterfall_reads_from_naive_to_plan() -> None:
    assert columns(waterfall_table(FALL)) == [
        "From naive to planned",
        "  GiB on the fullest GPU  saved  of naive   left    step",
        "  naive                                    40.00  2.00 s",
        "  sharding (ZeRO)         15.00      38 %  25.00  2.10 s",
        "  micro-batch             -5.00     -12 %  30.00  1.90 s",
        "  plan                    10.00      25 %  30.00        ",
        "",
    ]
    assert columns(component_table(FALL)) == [
        "By component",
        "  GiB at the peak's moment  optimizer  activations     sum",
        "  naive                         20.00        20.00   40.00",
        "  sharding (ZeRO)              -15.00               -15.00",
        "  micro-batch                                 5.00    5.00",
        "  plan                           5.00        25.00   30.00",
        "",
    ]


def test_what_wins_nothing_says_so() -> None:
    bindings = [
        Binding(
            resource="gpu_memory", detail="stage 0 is full", samples_per_second=3.0, gain_fraction=0.5,
            planned_again=True,
        ),
        Binding(
            resource="intra_node", detail="pcie idles", samples_per_second=2.0, gain_fraction=0.0,
            planned_again=True,
        ),
    ]  # fmt: skip
    assert binding_title(bindings) == "What binds: twice as much of each wins (planned again)"
    assert binding_sentences(bindings) == [
        "GPU memory: +50 %, 3 samples/s; stage 0 is full.",
        "links in a node: nothing; pcie idles.",
    ]
    purchases = [
        Purchase(
            resource="gpus", change="5 GPUs", samples_per_second=2.0, gain_fraction=0.0,
            plan="the same settings (4 of 5 GPUs used)",
        ),
        Purchase(
            resource="pin", change="without a pin", samples_per_second=None, gain_fraction=None,
            plan="no plan is possible",
        ),
        Purchase(
            resource="gpu_memory", change="2 GiB more", samples_per_second=2.5, gain_fraction=0.25,
            plan="no checkpointing", added_gib=2.0,
        ),
    ]  # fmt: skip
    assert [line.rstrip() for line in columns(purchase_table(purchases, 2.0), words_last=True)] == [
        "What the next one would buy (samples/s)",
        "                 now  then     wins  plan",
        "  5 GPUs           2     2  nothing  the same settings (4 of 5 GPUs used)",
        "  without a pin    2     -  no plan  no plan is possible",
        "  2 GiB more       2   2.5    +25 %  no checkpointing",
        "",
    ]


def test_a_layout_says_what_it_loses_to_and_what_mends_it() -> None:
    loss = LossSplit(
        bubble_seconds=0.8, imbalance_seconds=0.1, links_seconds=0.05, batch_seconds=0.0,
        recompute_seconds=-0.2, optimizer_seconds=0.0, other_seconds=0.0,
    )  # fmt: skip
    point = ScalePoint(
        gpus=4, layout="pipeline 2 x data 2", plan="ZeRO-1", step_seconds=2.0, samples_per_second=4.0,
        efficiency_fraction=0.6, loss=loss, links=("pcie-4.0-x16 takes 2.5 % of the step",),
    )  # fmt: skip
    mends = (
        Mend(layout=point.layout, change="global batch x 4", efficiency_fraction=0.92, reaches_aim=True),
        Mend(layout=point.layout, change="links x 16", efficiency_fraction=0.62, reaches_aim=False),
    )
    scaling = Scaling(
        base_gpus=2, aim_fraction=0.9, gpus_without_plan=(1,), points=(point,), layouts=(point,), mends=mends
    )
    assert scaling_sentences(scaling) == [
        "1 GPU has no plan.",
        "Pipeline 2 x data 2 runs at 60 % of linear and loses most to filling and draining the pipeline: too "
        "few micro-batches for its stages (800 ms a step); pcie-4.0-x16 takes 2.5 % of the step.",
        "Mend for pipeline 2 x data 2: global batch x 4 reaches 92 % of linear.",
        "Mend for pipeline 2 x data 2: links x 16 would not reach 90 %, only 62 % of linear.",
    ]


def test_a_family_that_lost_is_one_sentence() -> None:
    miss = NearestMiss(family="ZeRO-0", outcome="out_of_memory", detail="fits in no way: it lacks 7.16 GiB")
    told = Explanations(bindings=(), waterfall=FALL, nearest_misses=(miss,))
    assert miss_sentences(told) == ["ZeRO-0: fits in no way: it lacks 7.16 GiB."]


def test_the_long_form_is_the_short_one_and_more() -> None:
    workload, _, named, plan = case(8, memory_gib=3.0, global_batch_size=8)
    given = experiment(8, 1024, global_batch_size=8)
    told = explained(given, named, profile(8, 1024), plan)
    assert Plan.model_validate_json(canonical_json(told)) == told
    short, long = plan_text(plan, workload), explanations_text(told)
    assert "What binds: twice as much of each wins (at least)" in short
    for heading in ("By component", "What the next one would buy", "More GPUs", "All GPUs", "Nearest misses"):
        assert heading in long and heading not in short
    assert told.model_copy(update={"explanations": plan.explanations}) == plan
    shares: list[float] = []
    assert explained(given, named, profile(8, 1024), plan, shares.append) == told
    assert shares == sorted(shares) and shares[-1] == 1.0
