"""The article's rows that other pages measure: what they say, in figures that stand on the page named.

A test looks for every figure on its page, so that neither can change alone.
"""

from __future__ import annotations

from typing import NamedTuple

LAB_PLAN = "vdsgen plan examples/experiments/{} --lab examples/labs/{}"


class Measured(NamedTuple):
    """One row of docs/article.md."""

    row: str
    article: str
    answer: str
    page: str
    """Of docs/, where it was measured."""
    figures: tuple[str, ...]
    """As they stand in `answer` and on the page."""

    @property
    def cells(self) -> tuple[str, str, str]:
        return self.row, self.article, f"{self.answer} ([{self.page}]({self.page}))"


MEASURED = (
    Measured(
        "A6",
        "communication is the bottleneck on PCIe; compression cuts its volume by 50-75 %",
        "of gradients, yes: int8 with error feedback sends 25.4 % of an fp32 all-reduce's bytes and 50.9 % of a half "
        "precision one's, counted on the real engine. Of all that data ranks send, less: ZeRO-1 gathers its parameters "
        "uncompressed. Whether it pays is planned by the links; the engine's 1-bit optimizers are gone",
        "communication.md",
        ("25.4 %", "50.9 %"),
    ),
    Measured(
        "A7",
        "pipeline over temporal and spatial stages, tensor parallelism within large attention blocks",
        "pipeline × tensor × sequence × data, planned together. On the real engine losses agree with one process to 1e-5 "
        "and weights after two AdamW steps to 1e-5 of their norm, in fp32, with 2 tensor ranks, pipelines, ZeRO, and all of it",
        "model.md",
        ("1e-5",),
    ),
    Measured(
        "A14",
        "prefetch, parallel preprocessing and compressed storage: utilisation from 60-70 % to over 90 %",
        "each step says how long it waited for clips and what for. Videos decoded each time: 51 % of a step waited, on a "
        "slow disk 86 %; with cached latents 0.4 %, on the slow disk 28 %",
        "cache.md",
        ("51 %", "86 %", "0.4 %", "28 %"),
    ),
    Measured(
        "A15",
        "monitor memory, leaks, fine-grained metrics and instability",
        "each stage's seconds and each rank's peak memory in every step's metrics, TensorBoard, profiler traces; alarms for "
        "losses and gradients that are not finite, loss spikes, a falling loss scale and memory that grows between steps",
        "monitoring.md",
        ("loss spikes", "memory that grows between steps"),
    ),
    Measured(
        "A16",
        "saving must balance recovery against storage and I/O",
        "the interval is Daly's optimum from the lab's failure and write rates. Written beside training, a checkpoint of "
        "525 MiB stops it for 0.35 s instead of 2.56 s; saves are atomic and hashed",
        "saving.md",
        ("525 MiB", "0.35 s", "2.56 s"),
    ),
    Measured(
        "A18",
        "activation compression: 2-3 × less",
        "of what layers keep, yes: with products kept in int8 a micro-batch holds 56.7 MiB, for 122.5 MiB in fp32 and "
        "229.0 MiB without recomputation; gradients change by 8.5e-04, of which bf16 alone changes them by 5.8e-03",
        "activations.md",
        ("56.7", "122.5", "229.0", "8.5e-04", "5.8e-03"),
    ),
    Measured(
        "A19",
        "8-bit training: 4 × against fp32",
        "AdamW's moments in int8 are 11.31 MiB for 43.30 MiB of states, with the same losses to 1e-4",
        "validation.md",
        ("11.31 MiB", "43.30 MiB"),
    ),
    Measured(
        "A19",
        "… without harm to temporal stability",
        "linear layers in fp8 and int8: losses end 0.6 % (fp8) and 0.5 % (int8) higher; samples of so short a training "
        "hold together as little as those of bf16, and no less. Predicted to save time on wide models only",
        "low_precision.md",
        ("0.6 % (fp8)", "0.5 % (int8)"),
    ),
)

COMMANDS = {
    "A1": (
        LAB_PLAN.format("article-1.5b.yaml", "four-24gb.yaml"),
        "python -m tests.benchmarks.svd_unet --out docs/measured/svd_unet.json",
    ),
    "A2": (LAB_PLAN.format("article-1.5b-pinned.yaml", "four-24gb.yaml"),),
    "A3": ("python -m tests.benchmarks.article_claims --out docs/measured/article_claims.json",),
    "A4": (LAB_PLAN.format("article-1.5b.yaml", "four-24gb.yaml"),),
    "A5": (LAB_PLAN.format("article-1.5b.yaml", "four-24gb.yaml"),),
    "A6": ("python -m tests.benchmarks.communication_table",),
    "A7": ("python -m pytest tests/model/test_layouts.py tests/model/test_tensor_parallel.py",),
    "A8": ("python -m tests.benchmarks.article_claims --out docs/measured/article_claims.json",),
    "A9": (
        LAB_PLAN.format("article-1.5b-pinned.yaml", "four-24gb.yaml"),
        LAB_PLAN.format("article-1.5b.yaml", "four-24gb.yaml"),
    ),
    "A10": (LAB_PLAN.format("article-1.5b-pinned.yaml", "four-24gb.yaml"),),
    "A11": (
        LAB_PLAN.format("article-2.1b-pinned.yaml", "eight-24gb.yaml"),
        LAB_PLAN.format("article-2.1b.yaml", "eight-24gb.yaml"),
    ),
    "A12": (LAB_PLAN.format("wan-14b-lora.yaml", "one-16gb.yaml"),),
    "A13": (
        LAB_PLAN.format("article-1.2b-pinned.yaml", "four-16gb.yaml"),
        LAB_PLAN.format("article-1.2b.yaml", "four-16gb.yaml"),
    ),
    "A14": ("python -m tests.benchmarks.data_wait --steps 30",),
    "A15": ("python -m tests.benchmarks.monitoring_overhead",),
    "A16": ("python -m tests.benchmarks.saving",),
    "A17": ("vdsgen calibrate", "vdsgen verify", "vdsgen ablate"),
    "A18": ("python -m tests.benchmarks.activations --repeats 3 --warm-up 6 --steps 4",),
    "A19": (
        "python -m tests.benchmarks.adamw_8bit --videos data/clips --steps 40",
        "python -m tests.benchmarks.precision_consistency --dtype bf16",
    ),
    "A20": ("vdsgen report examples/rendered/article-1.5b@four-24gb --out report.html",),
    "A21": ("vdsgen check examples/rendered/article-1.5b@four-24gb",),
}
"""What prints, or measures again, the figures of a row."""


def command_rows() -> str:
    """The table of commands, in Markdown."""
    rows = (f"| {row} | {', '.join(f'`{one}`' for one in commands)} |" for row, commands in COMMANDS.items())
    return "\n".join(["| row | command |", "|---|---|", *rows])
