"""Figures from outside this project that the time model must give: what a wrong coefficient runs into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.cost.gpt import gpt, head, transformer_layer
from tests.cost.test_communication import settings
from tests.planner.examples import pool
from vdsgen.catalog.load import gpus, links
from vdsgen.cost import communication, compute, offload, rates
from vdsgen.cost.schedule import StageTimes, simulate
from vdsgen.cost.step import StepTimeModel
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.lab import Pool
from vdsgen.spec.profile import ModelProfile


class Anchor(NamedTuple):
    """A figure, and how near the model must come to it."""

    name: str
    predicted: float
    published: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return abs(self.predicted / self.published - 1) <= self.tolerance


def anchors() -> Iterator[Anchor]:
    """All of them, computed now."""
    for find in FOUND:
        yield from find()


def box(gpu: str, count: int, link: str) -> Pool:
    figures = {"gpu": gpus()[gpu].figures, "intra_node": links()[link].figures}
    return pool(count).model_copy(update=figures)


def step_seconds(profile: ModelProfile, on: Pool, tokens: int, **layout: object) -> float:
    geometry = Geometry(frames=1, patches=tokens, text_tokens=0, latent_height=1, latent_width=1)
    data = on.gpus_per_node if "tensor_parallel_size" not in layout else 1
    plan = settings(1, data, **layout)  # type: ignore[arg-type]
    return StepTimeModel(profile, geometry, on).step(plan, (0, len(profile.layers))).step_seconds


def megatron_22b() -> Iterator[Anchor]:
    """arXiv 2205.05198, table 5: 22 B on eight A100, tensor parallel, micro-batch 4, its communication
    included. (The paper scatters and gathers sequences, which moves as many bytes as all-reduces do.)"""
    whole = gpt(transformer_layer(6144, 64, flash=False), 48, head(6144, 51_200))
    shared = {
        "layer": transformer_layer(6144, 64, 8, flash=False),
        "head": head(6144, 51_200 // 8),
    }
    profile = whole.model_copy(update={"tensor_parallel": {8: shared}})
    on = box("a100-80gb-sxm", 8, "nvlink-3")
    common = {
        "micro_batch_size": 4, "gradient_accumulation_steps": 1, "dtype": "fp16",
        "gradient_accumulation_dtype": "fp16", "zero": 0, "tensor_parallel_size": 8,
    }  # fmt: skip
    plain = step_seconds(profile, on, 2048, **common)
    full = step_seconds(profile, on, 2048, activation_checkpoint_interval=1, **common)
    yield Anchor("GPT 22 B on 8 A100, all recomputed, s", full, 1.42, 0.16)
    yield Anchor("GPT 22 B on 8 A100, only attention recomputed, s", plain, 1.10, 0.13)


def mpt_on_a100() -> Iterator[Anchor]:
    """github.com/mosaicml/llm-foundry @8c8dd48, scripts/train/benchmarking: MPT-13B on eight A100 80GB with
    2,048 tokens, micro-batch 2, three accumulation steps, FSDP: 5.43 s; with 8,192, micro-batch 5, all
    recomputed: 68.4 s."""
    profile = gpt(transformer_layer(5120, 40, flash=True), 40, head(5120, 50_368))
    on = box("a100-80gb-sxm", 8, "nvlink-3")
    common = {"gradient_accumulation_steps": 3, "zero": 3, "reduce_bucket_elements": 500_000_000}
    short = step_seconds(profile, on, 2048, micro_batch_size=2, **common)
    long = step_seconds(profile, on, 8192, micro_batch_size=5, activation_checkpoint_interval=1, **common)
    yield Anchor("MPT-13B on 8 A100, 2,048 tokens, s", short, 5.432, 0.10)
    yield Anchor("MPT-13B on 8 A100, 8,192 tokens, s", long, 68.45, 0.13)


def model_flops() -> Iterator[Anchor]:
    """arXiv 2104.04473, equation 3, without its recomputation: 72 B S L h^2 (1 + S / 6h + V / 12 L h). Our
    backward of attention does five products where the paper counts four."""
    hidden, layers, tokens, vocabulary = 5120, 40, 2048, 50_368
    profile = gpt(transformer_layer(hidden, 40, flash=True), layers, head(hidden, vocabulary))
    geometry = Geometry(frames=1, patches=tokens, text_tokens=0, latent_height=1, latent_width=1)
    model = StepTimeModel(profile, geometry, pool(1))
    found = model.step(settings(1, 1, gradient_accumulation_steps=1), (0, layers + 1)).model_flops
    per_layer = 1 + tokens / (6 * hidden) + vocabulary / (12 * layers * hidden)
    yield Anchor("FLOPs of a step of MPT-13B", found, 72 * tokens * layers * hidden**2 * per_layer, 0.02)


def large_products() -> Iterator[Anchor]:
    """github.com/stas00/ml-engineering, compute/accelerator/README.md: best shapes in bf16."""
    for gpu, shape, tflops in (
        ("a100-80gb-sxm", (1024, 10_240, 5120), 271.2),
        ("h100-80gb-sxm", (2048, 2048, 13_312), 794.5),
    ):
        m, n, k = shape
        found = rates.Rates.of(box(gpu, 1, "pcie-4.0-x16"), "bf16").product_seconds(m, n, k, 2)
        yield Anchor(f"best product on {gpu}, TFLOP/s", 2e-12 * m * n * k / found, tflops, 0.12)


def flash_attention() -> Iterator[Anchor]:
    """Sources: rates.ATTENTION_EFFICIENCY. A100: 16 x 32 heads of 1,024 and 1 x 32 of 4,096 tokens, forward;
    H100: long sequences."""
    for gpu, tokens, heads, tflops in (
        ("a100-80gb-sxm", 1024, 512, 177.7),
        ("a100-80gb-sxm", 4096, 32, 185.6),
        ("h100-80gb-sxm", 16_384, 32, 0.35 * 989),
    ):
        flops = 4.0 * heads * tokens**2 * 128
        model = rates.Rates.of(box(gpu, 1, "pcie-4.0-x16"), "fp16")
        forward, backward = model.attention_seconds(flops, tokens, tokens, heads, 128)
        yield Anchor(
            f"attention of {tokens:,} tokens on {gpu}, TFLOP/s", flops / forward / 1e12, tflops, 0.13
        )
        yield Anchor("its backward over its forward", backward / forward, 2.5, 1e-9)


def memory() -> Iterator[Anchor]:
    """A copy on H100 (source: rates.BANDWIDTH_EFFICIENCY), and AdamW's bytes counted: arXiv 1910.02054,
    section 3.1, keeps 12 bytes a parameter, each read and written, and reads a gradient of 4; the norm reads
    4, clipping reads and writes 4, and the half precision copy reads 4 and writes 2."""
    model = rates.Rates.of(box("h100-80gb-sxm", 1, "pcie-4.0-x16"), "bf16")
    yield Anchor("copy on H100, GB/s", model.bytes_per_second / 1e9, 2903, 0.005)
    plan = settings(1, 1)
    per_parameter = compute.optimizer_seconds(10**9, plan, model) * model.bytes_per_second / 1e9
    yield Anchor("AdamW, bytes a parameter", per_parameter, 2 * 12 + 4 + 4 + 8 + 6, 1e-9)
    _, update = offload.offload_seconds(
        settings(1, 1, 2, offload_optimizer="cpu", gradient_accumulation_steps=1), 10**9, 10**9,
        offload.Host(1e9, 1e9),
    )  # fmt: skip
    yield Anchor("AdamW on the host, bytes a parameter", update, 2 * 12 + 4 + 6, 1e-9)
    # Four channels of 64 bits at 3,200 MT/s, of which STREAM reaches four fifths.
    host = offload.Host.of(pool(1)).memory_bytes_per_second
    yield Anchor("memory of a workstation, GB/s", host / 1e9, 0.8 * 4 * 8 * 3.2, 0.03)


def dispatch() -> Iterator[Anchor]:
    """A block with 8 tokens: 0.478 ms for 50 operators and 0.944 ms for 138 (rates.KERNEL_SECONDS)."""
    yield Anchor(
        "dispatch of 188 operators, s", 188 * rates.Rates.of(pool(), "bf16").kernel_seconds, 1.422e-3, 0.1
    )


def rings_and_pipelines() -> Iterator[Anchor]:
    """Patarasso and Yuan 2009: 2 (n - 1) / n of the data over each link. arXiv 1806.03377: of the time,
    (p - 1) / (m + p - 1) is bubble."""
    topology = communication.Topology.of(pool(4))
    path = topology.data_group(settings(1, 4), 0)
    yield Anchor(
        "all-reduce of 1 GB among 4 over 20 GB/s, s", path.ring_seconds(4, 1e9, passes=2), 0.07506, 1e-6
    )
    traffic = communication.step_traffic(settings(1, 4, 1), 10**9, 10**9, 1)
    reduced = traffic.reduce_passes * traffic.reductions * traffic.reduce_bytes
    # arXiv 1910.02054, section 7.2.1: ZeRO-1 could do with 2 bytes x 2; this engine all-reduces and gathers.
    yield Anchor(
        "ZeRO-1 of 1 B parameters, bytes", reduced + traffic.gathers * traffic.gather_bytes, 6e9, 1e-9
    )
    run = simulate([StageTimes(1.0, 2.0)] * 4, [0.0] * 3, 8)
    yield Anchor("bubble of 4 stages and 8 micro-batches", run.bubble_fraction, 3 / 11, 1e-9)


FOUND: tuple[Callable[[], Iterator[Anchor]], ...] = (
    megatron_22b, mpt_on_a100, model_flops, large_products, flash_attention, memory, dispatch,
    rings_and_pipelines,
)  # fmt: skip


def main() -> None:
    """The table of docs/planner.md."""
    print("| figure | predicted | published | error |\n|---|---|---|---|")
    for anchor in anchors():
        error = f"{anchor.predicted / anchor.published - 1:+.1%}"
        print(f"| {anchor.name} | {anchor.predicted:.4g} | {anchor.published:.4g} | {error} |")


if __name__ == "__main__":
    main()
