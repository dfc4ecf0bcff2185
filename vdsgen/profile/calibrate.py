"""Measures this machine with as many ranks as a job would have: what a plan's times rest on."""

from __future__ import annotations

import logging
import os
import queue
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vdsgen.errors import VdsgenError
from vdsgen.profile.calibrate_figures import calibration_of
from vdsgen.profile.calibrate_samples import Device
from vdsgen.profile.calibrate_shapes import ON_GPU, ON_PROCESSOR
from vdsgen.profile.machine import Machine
from vdsgen.spec.calibration import Calibration

RATES_SECONDS = 20.0
GPU_SAMPLE_SECONDS = 10e-3
"""Of calls in a row: fifty times what waiting for a GPU takes where its host is slow."""
ALONE_SECONDS = 2.0
CROWDED_SECONDS = 4.0
EXPECTED_SECONDS = 60.0
"""What it takes in all on two cores, starting the ranks included."""


class Progress(NamedTuple):
    """What is being measured, and about how long it still takes."""

    doing: str
    seconds_left: float


class Failure(NamedTuple):
    """Why a rank could not measure."""

    rank: int
    reason: str


class Task(NamedTuple):
    """What one rank is told."""

    rank: int
    ranks: int
    port: int
    threads: int
    busy_ranks: int
    """Ranks that compute while rates are measured; the others wait."""
    on_gpu: bool
    rates_seconds: float
    checkpoints: Path | None = None
    """Where saving is measured; None: it is not."""


def calibrate(
    machine: Machine,
    ranks: int,
    report: Callable[[Progress], None] | None = None,
    rates_seconds: float = RATES_SECONDS,
    checkpoints: Path | None = None,
) -> Calibration:
    """Starts `ranks` processes and takes the median over all their samples of each figure; of saving only
    where `checkpoints` names a folder.

    No more ranks compute at once than there are cores: the cost model shares the cores itself. Only what
    crowding costs besides is measured with all of them. Raises VdsgenError where a process dies, or where
    there are fewer GPUs than ranks.
    """
    import torch.multiprocessing as multiprocessing

    on_gpu = machine.accelerator is not None
    if on_gpu and ranks > machine.accelerators:
        raise VdsgenError(
            f"calibration: {ranks} ranks need as many GPUs, this machine has {machine.accelerators}",
            remedy=f"try --ranks {machine.accelerators}",
        )
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    busy = ranks if on_gpu else min(ranks, machine.cpu_cores)
    threads = max(1, machine.cpu_cores // ranks)
    port = _free_port()
    processes = [
        context.Process(
            target=_measure_rank,
            args=(Task(rank, ranks, port, threads, busy, on_gpu, rates_seconds, checkpoints), messages),
            daemon=True,
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    samples = _collect(
        processes, messages, report or _unseen, EXPECTED_SECONDS - RATES_SECONDS + rates_seconds
    )
    for process in processes:
        process.join()
    return calibration_of(samples, ranks=ranks, busy_ranks=busy, on_gpu=on_gpu)


def _collect(
    processes: list[Any], messages: Any, report: Callable[[Progress], None], expected_seconds: float
) -> list[dict[str, list[float]]]:
    """Each rank's samples; reports on the way. Ends every rank where one dies."""
    began, doing = time.monotonic(), "starting the ranks"
    samples: list[dict[str, list[float]]] = []
    while len(samples) < len(processes):
        report(Progress(doing, max(0.0, expected_seconds - (time.monotonic() - began))))
        try:
            message = messages.get(timeout=0.5)
        except queue.Empty:
            _stop_if_dead(processes)
            continue
        if isinstance(message, str):
            doing = message
        elif isinstance(message, Failure):
            _stop(processes)
            raise _failed(message.rank, len(processes), message.reason)
        else:
            samples.append(message)
    return samples


def _stop_if_dead(processes: list[Any]) -> None:
    for rank, process in enumerate(processes):
        if process.exitcode not in (None, 0):
            _stop(processes)
            raise _failed(rank, len(processes), f"ended with exit code {process.exitcode}")


def _stop(processes: list[Any]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()


def _failed(rank: int, ranks: int, reason: str) -> VdsgenError:
    return VdsgenError(
        f"calibration: rank {rank} of {ranks}: {reason}",
        remedy="is there enough memory for that many ranks? try fewer with --ranks",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _measure_rank(task: Task, messages: Any) -> None:
    """One rank's life: its samples, or why there are none."""
    _be_quiet()
    try:
        messages.put(_samples_of_rank(task, messages))
    except Exception as error:  # whatever torch raises: the command tells it, not a traceback of a rank
        messages.put(Failure(task.rank, f"{type(error).__name__}: {error}".splitlines()[0]))
    messages.close()
    messages.join_thread()


def _samples_of_rank(task: Task, messages: Any) -> dict[str, list[float]]:
    """Between the barriers all busy ranks do the same thing at the same time."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not task.on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed says that it found no other
    import torch
    import torch.distributed as dist

    from vdsgen.model.distributed import init_distributed
    from vdsgen.profile import calibrate_compute as compute
    from vdsgen.profile import calibrate_engine as engine
    from vdsgen.profile import calibrate_links as links
    from vdsgen.profile import calibrate_storage as storage

    torch.set_num_threads(task.threads)
    if task.on_gpu:
        torch.cuda.set_device(task.rank)
        device = Device(f"cuda:{task.rank}", torch.cuda.synchronize, least_seconds=GPU_SAMPLE_SECONDS)
    else:
        device = Device("cpu", clock=time.process_time if task.threads == 1 else time.perf_counter)
    backend = "nccl" if task.on_gpu else "gloo"
    os.environ |= {
        "RANK": str(task.rank),
        "LOCAL_RANK": str(task.rank),
        "WORLD_SIZE": str(task.ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(task.port),
    }
    dist.init_process_group(backend)
    init_distributed()
    sizes = ON_GPU if task.on_gpu else ON_PROCESSOR

    def begin(phase: str) -> None:
        dist.barrier()
        if task.rank == 0:
            messages.put(phase)

    samples: dict[str, list[float]] = {}
    begin("matrix rates by precision")
    if task.rank < task.busy_ranks:
        names = compute.dtypes_here(task.on_gpu)
        samples |= compute.large_product_samples(names, device, sizes)
    begin("rates by shape, and one real layer")
    if task.rank < task.busy_ranks:
        quick = compute.quick_dtypes(samples)
        samples |= compute.rate_samples(quick, device, sizes, task.rates_seconds)
    begin("one rank alone")
    if task.rank == 0:
        samples |= compute.block_samples("alone", device, ALONE_SECONDS)
    if task.ranks > task.busy_ranks:
        begin("more ranks than cores")
        samples |= compute.block_samples("crowded", device, CROWDED_SECONDS)
    begin("the engine's own overhead")
    samples |= engine.engine_samples(task.ranks, device)
    begin("links between ranks")
    if task.ranks > 1:
        samples |= links.link_samples(task.rank, task.ranks, device)
    if task.on_gpu:
        begin("links to the host")
        samples |= links.host_samples(device)
    if task.checkpoints is not None:
        begin("saving")
        samples |= storage.storage_samples(task.checkpoints, task.rank, dist.barrier)
    dist.barrier()
    dist.destroy_process_group()
    return samples


def _be_quiet() -> None:
    """The engine greets on standard output, which is the command's own."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def _unseen(_progress: Progress) -> None:
    """Nobody watches."""
