"""Rows of any content are predicted or get a reason, and never an exception."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.published.rows import DIT, GPT, row, written
from vdsgen.published.compare import outcome_of
from vdsgen.published.row import COLUMNS, LARGEST, read_rows

NUMBERS = st.sampled_from(["", "0", "1", "2", "3", "7", "8", "48", "128", "1000", "4096", "65536", "x", "-5"])
WORDS = st.sampled_from(
    [
        "", "gpt", "dit", "unet", "full", "none", "selective", "lora r16", "lora r0", "bf16", "fp16", "fp8",
        "bf16 mixed", "Adam (fp16 w/ fp32 master)", "AdamW", "AdamW8bit(bnb)", "CogVideoX-2b", "llama3 8B",
        "H100 80GB", "V100 16GB", "Toaster", "optimizer to CPU", "DeepSpeed PipelineModule", "allocated",
        "reserved", "CP=0; micro-batches=0; vocab 0", "CP=3; ffn=1; kv groups=5; pipeline stage 9 of 2",
        "virtual pipeline=0", "FSDP", "Megatron", "\x00\u2028, \"", "vocab 999999999k; ~0 MP",
    ]
)  # fmt: skip


@given(st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_row_says_it_is_predicted_or_gets_a_reason(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from([GPT, DIT]))
    changed = data.draw(st.lists(st.sampled_from(COLUMNS), max_size=6, unique=True))
    cells = {name: data.draw(NUMBERS if name in LARGEST else WORDS) for name in changed}
    with TemporaryDirectory() as folder:
        (one,) = read_rows(written(Path(folder) / "rows.csv", {**base, **cells}))
    outcome = outcome_of(one)
    assert (outcome.memory is not None) + (outcome.memory_reason is not None) == (
        one.number("peak_mem_gb") is not None
    )
    for figure in (outcome.memory, outcome.seconds):
        assert figure is None or 0 < figure.predicted < float("inf")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arch": "unet"}, "architecture 'unet'"),
        ({"arch": ""}, "no arch"),
        ({"hidden": ""}, "no hidden"),
        ({"seq_len": ""}, "no seq_len"),
        ({"micro_batch": ""}, "no micro_batch"),
        ({"dp": "", "gpus": ""}, "neither dp nor gpus"),
        ({"precision": "fp8"}, "matrix products in fp8"),
        ({"grad_ckpt": ""}, "no grad_ckpt"),
        ({"grad_ckpt": "some layers"}, "checkpointing: some layers"),
        ({"offload": "disk"}, "offload: disk"),
        ({"trainable": "lora r16"}, "lora r16"),
        ({"layers": "2", "pp": "4"}, "2 layers on 4 stages"),
        ({"heads": "7"}, "7 heads"),
        ({"optimizer": "SGD", "source_repo_or_paper": "a paper", "notes": ""}, "which trainer"),
        ({"layers": "-3"}, "no number in layers"),
    ],
)
def test_what_cannot_be_expressed_has_its_reason(
    tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    outcome = outcome_of(row(tmp_path, **changes))
    assert outcome.memory is None
    assert reason in (outcome.memory_reason or "")


def test_an_unknown_gpu_leaves_memory_predicted(tmp_path: Path) -> None:
    outcome = outcome_of(row(tmp_path, gpu_type="Toaster 9000"))
    assert outcome.memory is not None
    assert outcome.seconds_reason == "no GPU like 'Toaster 9000' in the catalogue"


def test_layers_and_heads_may_be_derived(tmp_path: Path) -> None:
    """12 h^2 a layer, and heads of about 128: a 1.2 B model of width 2048 has 24 layers and 16 heads."""
    changes = {"model": "GPT", "hidden": "2048", "notes": "vocab 50257", "pp": "2", "global_batch": "64"}
    derived = outcome_of(row(tmp_path, layers="", heads="", params_b="1.2", **changes))
    given_sizes = outcome_of(row(tmp_path, layers="24", heads="16", params_b="1.2", **changes))
    assert derived.memory is not None
    assert derived.memory == given_sizes.memory
    assert derived.seconds == given_sizes.seconds


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("GPT3-175B", (96, 12288)),
        ("LLAMA2-70B", (80, 8192)),
        ("Llama3.1 405B", (126, 16384)),
        ("Llama 8Bx", None),
    ],
)
def test_a_name_may_stand_for_its_sizes(tmp_path: Path, name: str, sizes: tuple[int, int] | None) -> None:
    blank = {"layers": "", "hidden": "", "heads": "", "notes": "vocab 32000"}
    named = outcome_of(row(tmp_path, model=name, **blank))
    if sizes is None:
        assert named.memory_reason == "no hidden"
        return
    layers, hidden = sizes
    written_out = outcome_of(
        row(tmp_path, model=name, **{**blank, "layers": str(layers), "hidden": str(hidden)})
    )
    assert named.memory is not None
    assert named.memory == written_out.memory


def test_checkpointing_that_nobody_states_is_assumed_where_nothing_else_fits(tmp_path: Path) -> None:
    small = outcome_of(row(tmp_path, **{**DIT, "grad_ckpt": "", "gpu_type": "RTX 4090"})).memory
    large = outcome_of(row(tmp_path, **{**DIT, "grad_ckpt": "", "gpu_type": "H200"}))
    stated = outcome_of(row(tmp_path, **{**DIT, "grad_ckpt": "full", "gpu_type": "RTX 4090"})).memory
    assert small is not None
    assert stated is not None
    assert small.predicted == stated.predicted
    assert "assumed" in (small.remark or "")
    assert "with and without" in (large.memory_reason or "")


def test_a_ceiling_counts_only_where_it_is_exceeded(tmp_path: Path) -> None:
    notes = GPT["notes"] + "; CEILING: read before training"
    below = outcome_of(row(tmp_path, notes=notes, peak_mem_gb="100")).memory
    above = outcome_of(row(tmp_path, notes=notes, peak_mem_gb="0.1")).memory
    assert below is not None
    assert above is not None
    assert (below.counts, above.counts) == (False, True)
    assert "ceiling" in (below.remark or "")


def test_the_kind_of_reading_decides_what_is_compared(tmp_path: Path) -> None:
    read = {
        kind: outcome_of(row(tmp_path, mem_kind=kind)).memory for kind in ("allocated", "reserved", "unknown")
    }
    predicted = {kind: figure.predicted for kind, figure in read.items() if figure is not None}
    assert predicted["allocated"] < predicted["reserved"] < predicted["unknown"]
    assert predicted["reserved"] == pytest.approx(1.065 * predicted["allocated"])
