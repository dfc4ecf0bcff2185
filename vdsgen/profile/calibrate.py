"""Measures this machine with as many ranks at once as a job would have: what a plan's times rest on."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vdsgen.errors import VdsgenError
from vdsgen.spec.calibration import Calibration
from vdsgen.units import GIB

if TYPE_CHECKING:
    import torch

MATRIX_SECONDS = 0.5
MATRIX_ROWS, MATRIX_COLUMNS = 1024, 768
FEW_MATRIX_ROWS = 32
SLOW_TFLOPS = 0.005
STREAM_ELEMENTS = 8 * 1024**2
LINK_BYTES = 8 * 1024**2
LINK_ROUNDS = 10
LATENCY_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Machine:
    """What a lab file says of one node."""

    host_memory_bytes: int
    cpu_cores: int


def this_machine() -> Machine:
    """Memory and the cores this process may use."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    memory_bytes = page_bytes * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_memory_limit_bytes()
    if limit is not None:
        memory_bytes = min(memory_bytes, limit)
    return Machine(host_memory_bytes=memory_bytes, cpu_cores=len(os.sched_getaffinity(0)))


def _cgroup_memory_limit_bytes() -> int | None:
    """The container's limit (cgroup v2, memory.max), if there is one."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def calibrate_cpu(ranks: int) -> Calibration:
    """Runs `ranks` processes at once and takes the median over them of each figure.

    Raises VdsgenError where a process dies.
    """
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    processes = [
        context.Process(target=_measure_rank, args=(rank, ranks, port, threads, results), daemon=True)
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [rank for rank, process in enumerate(processes) if process.exitcode != 0]
    if failed:
        raise VdsgenError(
            f"calibration: rank {failed[0]} of {ranks} ended with exit code {processes[failed[0]].exitcode}",
            remedy="is there enough memory for that many ranks? try fewer with --ranks",
        )
    measured: list[dict[str, float]] = [results.get() for _ in processes]

    def median(key: str) -> float | None:
        values = [figures[key] for figures in measured if key in figures]
        return float(f"{statistics.median(values):.4g}") if values else None

    return Calibration(
        fp32_matmul_tflops=median("fp32_matmul_tflops"),
        bf16_matmul_tflops=median("bf16_matmul_tflops"),
        memory_bandwidth_gb_per_second=median("memory_bandwidth_gb_per_second"),
        link_bandwidth_gb_per_second=median("link_bandwidth_gb_per_second"),
        link_latency_microseconds=median("link_latency_microseconds"),
    )


def _measure_rank(rank: int, ranks: int, port: int, threads: int, results: object) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(threads)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    figures: dict[str, float] = {}
    # Between the barriers all ranks are busy with the same thing, as they are in a training step.
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        dist.barrier()
        figures[f"{name}_matmul_tflops"] = _matmul_tflops(dtype)
    dist.barrier()
    figures["memory_bandwidth_gb_per_second"] = _stream_gb_per_second()
    dist.barrier()
    if ranks > 1:
        figures |= _link_figures(rank, ranks)
    dist.barrier()
    dist.destroy_process_group()
    results.put(figures)  # type: ignore[attr-defined]


def _median_seconds(call: Callable[[], object], budget_seconds: float) -> float:
    call()
    samples: list[float] = []
    deadline = time.perf_counter() + budget_seconds
    while time.perf_counter() < deadline or len(samples) < 3:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def _matmul_tflops(dtype: torch.dtype) -> float:
    """Matrix rate at the shape of a transformer's linear layers: (rows, columns) x (columns, columns)."""
    import torch

    weight = torch.randn(MATRIX_COLUMNS, MATRIX_COLUMNS).to(dtype)

    def tflops(rows: int) -> float:
        activations = torch.randn(rows, MATRIX_COLUMNS).to(dtype)
        seconds = _median_seconds(lambda: torch.mm(activations, weight), MATRIX_SECONDS)
        return 2 * rows * MATRIX_COLUMNS**2 / seconds / 1e12

    # Processors without matrix units for a dtype are hundreds of times slower: a few rows tell.
    few = tflops(FEW_MATRIX_ROWS)
    return few if few < SLOW_TFLOPS else tflops(MATRIX_ROWS)


def _stream_gb_per_second() -> float:
    """Bytes read and written by an out-of-place addition, too large for the caches."""
    import torch

    left, right = torch.ones(STREAM_ELEMENTS), torch.ones(STREAM_ELEMENTS)
    out = torch.empty(STREAM_ELEMENTS)
    seconds = _median_seconds(lambda: torch.add(left, right, out=out), MATRIX_SECONDS)
    return 3 * 4 * STREAM_ELEMENTS / seconds / 1e9


def _link_figures(rank: int, ranks: int) -> dict[str, float]:
    """A ring in which every rank sends and receives at once, then a ping-pong of neighbours."""
    import torch
    import torch.distributed as dist

    def exchange(payload: torch.Tensor, landing: torch.Tensor) -> None:
        requests = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, payload, (rank + 1) % ranks),
                dist.P2POp(dist.irecv, landing, (rank - 1) % ranks),
            ]
        )
        for request in requests:
            request.wait()

    def seconds_of(size_bytes: int, rounds: int) -> float:
        payload = torch.zeros(size_bytes, dtype=torch.uint8)
        landing = torch.empty_like(payload)
        samples = []
        for _ in range(rounds):
            start = time.perf_counter()
            exchange(payload, landing)
            samples.append(time.perf_counter() - start)
        return statistics.median(samples)

    large = seconds_of(LINK_BYTES, LINK_ROUNDS)
    small = seconds_of(8, LATENCY_ROUNDS)
    return {
        "link_bandwidth_gb_per_second": LINK_BYTES / max(large - small, 1e-9) / 1e9,
        "link_latency_microseconds": small * 1e6,
    }


def lab_file(machine: Machine, ranks: int, calibration: Calibration) -> str:
    """A lab file for this machine's processor, as a person would have written it."""
    figures = "".join(
        f"      {key}: {value}\n" for key, value in calibration.model_dump().items() if value is not None
    )
    return (
        "# One machine without GPUs: the ranks share its processor.\n"
        "pools:\n"
        "  - name: cpu\n"
        "    gpu: cpu\n"
        f"    gpus_per_node: {ranks}\n"
        "    intra_node: shared-memory\n"
        f"    host_memory_gib: {machine.host_memory_bytes / GIB:.1f}\n"
        f"    cpu_cores: {machine.cpu_cores}\n"
        "    # Measured by `vdsgen calibrate`, all ranks at once.\n"
        "    calibration:\n" + figures
    )
