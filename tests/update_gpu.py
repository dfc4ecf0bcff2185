"""Writes docs/gpu.md from what was measured and predicted in docs/measured/gpu.

python -m tests.update_gpu
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from tests.gpu_cases import CASES, DEMO, FOLDER, LARGE, LORA, WAN, WIDE, Case
from tests.gpu_predictions import FILE as PREDICTED
from vdsgen.catalog.load import gpus
from vdsgen.units import GIB

PAGE = FOLDER.parents[1] / "gpu.md"
MEASURED = FOLDER / "h200.json"
MODELS = {LARGE: "1.5 B", WIDE: "wide, 1.4 B", WAN: "Wan 1.3 B", LORA: "Wan 1.3 B", DEMO: "demo, 5.7 M"}
MIB = 2**20


def page() -> str:
    measured, predicted = _read(MEASURED), _read(PREDICTED)
    sections = (
        _opening(measured),
        _memory(measured, predicted),
        _time(measured, predicted),
        _card(measured),
        _mended(measured),
        _LAST,
    )
    return "\n".join(sections)


def _read(path: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def peak_bytes(runs: list[dict[str, Any]]) -> int:
    return max(int(run["peak_bytes"]) for run in runs)


def seconds(runs: list[dict[str, Any]]) -> list[float]:
    """Of every timed step, without waiting for clips, which plans leave out."""
    return [step["step_seconds"] - step["data_seconds"] for run in runs for step in run["steps"]]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _name(case: Case) -> str:
    return f"{MODELS[case.experiment]}: {case.words}"


def _off(planned: float, found: float) -> str:
    return f"{planned / found - 1:+.1%}"


def _opening(measured: dict[str, Any]) -> str:
    versions = measured["versions"]
    return f"""# Plans beside a GPU

{len(CASES)} runs on one {measured["device"]} ({measured["memory_mib"]:,} MiB, driver {measured["driver"]}), beside \
what plans say of them.
torch {versions["torch"]} with CUDA {versions["cuda"]}, cuDNN {versions["cudnn"]} and NCCL {versions["nccl"]}, \
DeepSpeed {versions["deepspeed"]}, Python {versions["python"]}.
The host: {measured["host"]}, whose other
guests nobody saw. Trainers had {measured["threads"]} threads (the demo's with micro-batch 8 all), and while one
trained others were starting, so that whatever the host bounds varies by half. Before this no part of the trainer
had met a GPU; all {len(CASES)} cases ran at the first try.

*1.5 B* is the article's model at its full size: 16 frames of 256 x 256, 4,096 tokens a clip, latents and embeddings
from the cache. *Wide* has 10 blocks of hidden size 3,072. *Wan* is `wan2.1-t2v-1.3b` with random weights on squares
of pixels. Where nothing else is said, the 1.5 B model has micro-batch 4, ZeRO-1 and every block recomputed, in bf16.
Experiments and figures lie in [measured/gpu](measured/gpu), pins in `tests/gpu_cases.py`. On a machine of your own:

```
vdsgen scan --out lab.yaml
python -m tests.benchmarks.gpu_cases --lab lab.yaml --out runs/gpu     # generates and launches each case
python -m tests.benchmarks.gpu_rates                                   # what the card reaches by itself
python -m tests.gpu_predictions && python -m tests.update_gpu          # plans them again, and writes this page
```
"""


def _memory(measured: dict[str, Any], predicted: dict[str, Any]) -> str:
    rows = []
    for case in CASES:
        runs, planned = measured["runs"][case.name], predicted[case.name]["peak_bytes"]
        found = peak_bytes(runs)
        reserved = [run["reserved_peak_bytes"] for run in runs if "reserved_peak_bytes" in run]
        rows.append(
            _row(
                _name(case),
                f"{planned / GIB:.2f}",
                f"{found / GIB:.2f}",
                _off(planned, found),
                f"{(found - planned) / MIB:,.0f}",
                f"{max(reserved) / GIB:.2f}" if reserved else "",
            )
        )
    bundled = [case for case in CASES if case.experiment in (LARGE, WIDE)]
    worst = max(
        abs(predicted[case.name]["peak_bytes"] / peak_bytes(measured["runs"][case.name]) - 1)
        for case in bundled
    )
    return f"""## Memory

Predicted peaks are without the reserve, measured ones `torch.cuda.max_memory_allocated`, the highest of all steps.
Of the {len(bundled)} runs of large bundled models **no prediction is off by more than {worst:.1%}**.

| GiB | predicted | measured | error | MiB more | reserved by torch |
| --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

- What is missing hardly depends on the case: 25 to 133 MiB. The demo has 62 of it and little else, as much as two
  workspaces of cuBLAS, which torch makes 32 MiB large on Hopper for each thread that multiplies, forward's and
  backward's. It is nothing to 30 GiB, and a quarter of the demo's 0.2. The plan's reserve covers it: 6.5 % of the
  tensors, and 1.06 GB for the driver.
- What torch reserves is up to a quarter more than it ever allocated at once, where the GPU has room: it gives back
  before it fails. A process alone on the card held 1.7 GiB besides (context, kernels, a communicator).
- Wan needs less than planned. Its norms are the likely cause (CUDA has one kernel for an RMS norm, and profiles are
  traced with torch's several operators, which keep more); no trace was taken that would settle it.
"""


def _time(measured: dict[str, Any], predicted: dict[str, Any]) -> str:
    rows = []
    for case in CASES:
        taken, planned = seconds(measured["runs"][case.name]), predicted[case.name]
        middle = statistics.median(taken)
        rows.append(
            _row(
                _name(case),
                f"{middle:.3f}",
                f"{min(taken):.3f} to {max(taken):.3f}",
                f"{planned['step_seconds']:.3f}",
                f"{planned['step_seconds'] / middle - 1:+.0%}",
                f"{planned['calibrated_step_seconds']:.3f}",
                f"{planned['calibrated_step_seconds'] / middle - 1:+.0%}",
            )
        )
    return f"""## Time

Seconds of a step without waiting for clips: the median of 2 to 9 steps after two that warm up. Predicted twice: by
the catalogue's figures, and by what `vdsgen calibrate` measured on one of the machines
([calibration.yaml](measured/gpu/calibration.yaml)).

| seconds | measured | from, to | catalogue | error | calibrated | error |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

**Where the GPU is busy the catalogue is right to a few per cent**: the 1.5 B model with micro-batch 4 and 8, also where
activations are packed or wait in host memory. **Where the host is slower than the GPU it cannot be**: it takes 8
microseconds for starting an operator, and these hosts took 23 and 35. `vdsgen calibrate` measures that, and DeepSpeed's
own Python for each parameter besides (ZeRO-3: a millisecond each to gather and reduce). So calibrate where the GPU is
fast.

The misses, and why:

- *Micro-batch 1, and the demo*: measured on another machine, the first on both. Its host took 23 microseconds for an
  operator, the calibrated one 35.
- *Selective recomputation* goes through a Python mode that sees every operator, forward and again: on this host it took
  {_slower(measured)} times as long as recomputing everything. A block's forward took 4.4 times as long to start as a plain
  one. Plans do not count it yet: beside a GPU that outruns its host, pin `recompute: full`.
- *fp8* starts 25 kernels for each product. With the 1.5 B model's {_products():,} products a step the GPU waits for its
  host half of the time. Wide layers are slower than in bf16 too: torch's kernel that rounds operands took 168 of 566 ms
  of the GPU's time, far below the memory's rate. **Neither fp8 nor int8 pays on this card** until rounding is one
  kernel. int8 multiplies at 41 % of its peak here, bf16 at 74 %; plans take them to reach the same share.
- *The optimizer in host memory*: CPU Adam had 4 threads of 16; the plan counts the host's memory rate.
- *EMA in host memory*: the same 4 threads.
- *Wan*: its products are not known by shape. The calibration says 644 TFLOP/s for a large one, where others that it
  measured reached 760: most likely since it waited for each, of 1.7 ms. Samples have been five times as long since.
- *8-bit AdamW* is made of torch's own operators, whose start the catalogue's 8 microseconds underrate.
"""


def _slower(measured: dict[str, Any]) -> str:
    def middle(name: str) -> float:
        return statistics.median(seconds(measured["runs"][name]))

    return f"{middle('1.5b-selective') / middle('1.5b-4'):.1f}"


def _products() -> int:
    """In 8 bits: 48 blocks of 8, forward, once more, and twice in backward."""
    return 48 * 8 * 4


def _card(measured: dict[str, Any]) -> str:
    rates, gpu = measured["rates"], gpus()["h200-141gb-sxm"]
    peaks = {
        "product bf16 TFLOP/s": gpu.bf16_tflops,
        "product fp16 TFLOP/s": gpu.fp16_tflops,
        "product fp32 TFLOP/s": gpu.fp32_tflops,
        "product fp8 TFLOP/s": gpu.fp8_tflops,
        "product int8 TOP/s": gpu.int8_tflops,
        "copy GB/s": gpu.memory_bandwidth_gb_per_second,
        "addition GB/s": gpu.memory_bandwidth_gb_per_second,
    }
    rows = []
    for name, rate in rates.items():
        peak = peaks.get(name)
        beside = ("", "") if peak is None else (f"{peak:,}", f"{rate / peak:.0%}")
        rows.append(_row(name, f"{rate:,.1f}", *beside))
    return f"""## The card beside its row in the catalogue

`python -m tests.benchmarks.gpu_rates`: each call waited for; products of 8192 x 8192 matrices, attention as batch x
heads x length x head size in bf16.

| | measured | catalogue's peak | share |
| --- | ---: | ---: | ---: |
{chr(10).join(rows)}

Plans count on 80 % of the matrix peak and 87 % of the bandwidth. The best shapes that `vdsgen calibrate` multiplied
reached 769 TFLOP/s in bf16, 78 %. torch 2.11 takes cuDNN's attention on Hopper, which is faster on long sequences than
the flash attention 2 that plans count on, and as slow on short ones.
"""


def _mended(measured: dict[str, Any]) -> str:
    before, now = measured["before_mending"], measured["runs"]

    def gib(runs: list[dict[str, Any]]) -> str:
        return f"{peak_bytes(runs) / GIB:.2f} GiB"

    def optimizer(runs: list[dict[str, Any]]) -> str:
        return (
            f"{statistics.median(step['optimizer_seconds'] for run in runs for step in run['steps']):.2f} s"
        )

    offloaded, packed, average = "1.5b-offloaded-activations", "1.5b-packed-activations", "1.5b-ema-host"
    return f"""## What was wrong

Everything ran, and the first five losses of one batch agreed to four digits whatever the precision, ZeRO stage or
offload. These did not do what they were for:

| | before | after |
| --- | ---: | ---: |
| Activations in host memory: the peak with micro-batch 8 | {gib(before[offloaded])} | {gib(now[offloaded])} |
| Activations in int8: the peak | {gib(before[packed])} | {gib(now[packed])} |
| EMA in host memory: the optimizer's part of a step | {optimizer(before[average])} | {optimizer(now[average])} |

- torch 2.11's checkpointing saves an empty tensor before a segment's arguments (2.13's does not). It was taken for the
  hidden state: nothing left the GPU and nothing was packed, without a word.
- The average's weights came to the host through pageable memory, one piece after the other. They come through two
  page-locked pieces now, one ahead.
- `vdsgen calibrate` waited for every call on the GPU: AdamW of 2 million parameters showed 221 GB/s, which is the time
  of waiting. Calls follow one another now, AdamW has 64 million (2,641 GB/s), and the block that is measured is the
  1.5 B model's.
"""


_LAST = """## What else was tried

- `vdsgen scan` wrote [lab.yaml](measured/gpu/lab.yaml) by NVML in 0.7 s; `vdsgen preflight --no-rehearsal` found the
  card, its driver, CUDA and NCCL in 0.5 s, and nothing amiss.
- `vdsgen launch` through DeepSpeed's runner: 12 steps of the demo with EMA, held-out losses, two checkpoints and a
  sample video, then `--resume` to step 20. Its loss was 1.2272 in step 12 and 1.2139 in step 13; held out 1.2405 before
  the first step, 1.2087 after the 12th and 1.1445 after the last.
- `--profile-steps` traced kernels, which is what causes above were read from.

Not tried: several GPUs and what they exchange, the rehearsal, parameters in host memory (its first step took 10 s, and
time was over), fp32, CUDA graphs, other cards. `vdsgen verify` traces operators and sees neither cuBLAS's workspaces nor
what torch reserves.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
