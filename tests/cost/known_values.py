"""What formulas must give where no measurement of a whole engine can tell: the engine's own parts, with the
disk left out, and a model's own parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from tests.cost.activations_by_hand import wrong_activations
from tests.cost.engine_cases import sizes_of
from tests.cost.matrix_cases import matrix
from tests.cost.matrix_predictions import Cost, layer_shapes
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.spec.plan import Offload


def wrong_values(cost: Cost) -> Iterator[str]:
    """Names of the figures that are not what the engine or the model says."""
    ours = cost.host_memory.host_bytes_of_zero_3(1_000_000, 400_000, 4, swapped=True)
    if ours != nvme_optimizer_bytes(1_000_000, 400_000):
        yield "host memory of an optimizer on NVMe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost.engine_defaults, "NVME_MAX_PARAMETERS_IN_HOST", 1_000_000)
        for share in (700_000, 2_000_000):
            ours = cost.host_memory.host_bytes_of_parameters(share, 400_000, 2, swapped=True)
            if ours != nvme_parameter_bytes(share, 400_000, kept=1_000_000):
                yield f"host memory of {share} parameters on NVMe"
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadParamConfig

    kept = DeepSpeedZeroOffloadParamConfig(device="nvme").max_in_cpu
    for share, far in ((kept - 5, 0), (kept + 5, 5)):
        if cost.host_memory.nvme_bytes_of_parameters(share, 2) != 2 * far:
            yield f"files of {share} parameters on NVMe"
    yield from wrong_files(cost)
    yield from wrong_offload(cost)
    yield from wrong_activations(cost)
    if norm_element_bytes() != cost.reduction.NORM_ELEMENT_BYTES:
        yield "bytes of a norm's element"
    shapes = layer_shapes()
    for frozen in (0, 3):
        sizes = cost.stage_sizes.StageSizes.of(profile(frozen), range(len(shapes)))
        trained = [shape for layer in shapes for shape in layer[: len(layer) - frozen]]
        everything = sizes_of([shape for layer in shapes for shape in layer])
        if sizes != sizes_of(trained)._replace(parameters=everything.parameters):
            yield f"sizes of a model with {frozen} frozen parameters a layer"
    everything_frozen = max(map(len, shapes))
    sizes = cost.stage_sizes.StageSizes.of(profile(everything_frozen), range(len(shapes)))
    if sizes[1:] != (0, 0, ()):
        yield "sizes of a model that trains nothing"
    for settings in padded_settings():
        states = cost.model_states.model_states(StageSizes(5, 5, 5, ((5, 1),)), settings)
        if states.parameters_bytes != settings.element_bytes * padded_elements(5, settings):
            yield f"padding of flat parameters, {settings}"
    for on_host, tensors in ((False, 0), (False, 10**12), (True, 0)):
        ours = cost.memory.reserve_bytes(tensors, 10**12, None, on_host)
        if ours != documented_reserve_bytes(tensors, on_host=on_host):
            yield f"reserve beside {tensors} bytes"
    if cost.memory.reserve_bytes(10**9, 1000, 0.25, False) != 250:
        yield "a reserve that the lab gives"
    if cost.stage_sizes.StageSizes(5, 0, 0, ()).straddling_elements != 0:
        yield "a straddling parameter of a stage that trains none"


def profile(frozen: int) -> Any:
    """The measured model as the planner gets it, each layer's last parameters frozen."""
    layers = {}
    for shapes in set(layer_shapes()):
        counts = [torch.Size(shape).numel() for shape in shapes]
        layers[str(shapes)] = SimpleNamespace(
            parameters=sum(counts),
            trainable_parameters=sum(counts[: max(0, len(counts) - frozen)]),
            parameter_shapes=shapes,
        )
    return SimpleNamespace(layer_types=layers, layers=tuple(map(str, layer_shapes())))


def documented_reserve_bytes(tensor_bytes: int, *, on_host: bool) -> int:
    """The figures that docs/memory.md gives with their sources."""
    page = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    (context,) = re.findall(r"^\* ([\d.]+) GB for the driver's context", page, re.MULTILINE)
    (process,) = re.findall(r"On a processor (\d+) MB", page)
    (share,) = re.findall(r"^\* ([\d.]+) % of the bytes in tensors", page, re.MULTILINE)
    fixed = float(process) * 1e6 if on_host else float(context) * 1e9
    return round(fixed + float(share) / 100 * tensor_bytes)


def padded_settings() -> list[Settings]:
    """One mode of each optimizer that flattens parameters, on three data ranks."""
    plain = matrix()[0].settings._replace(data_parallel_size=3, zero_stage=1)
    bf16 = plain._replace(dtype="bf16", gradient_accumulation_dtype="fp32")
    offloaded = plain._replace(offload_optimizer="cpu")
    return [plain, plain._replace(zero_stage=2), offloaded, bf16]


def padded_elements(elements: int, settings: Settings) -> int:
    """By the engine's own function and the alignment that its optimizers set."""
    from deepspeed.runtime import bf16_optimizer
    from deepspeed.runtime.utils import align_dense_tensors
    from deepspeed.runtime.zero import stage_1_and_2

    mixed = settings.dtype != settings.gradient_accumulation_dtype
    source = inspect.getsource(bf16_optimizer if mixed else stage_1_and_2)
    (factor,) = set(re.findall(r"self\.nccl_start_alignment_factor = (\d+)", source))
    aligned = align_dense_tensors([torch.empty(elements)], int(factor) * settings.data_parallel_size)
    return sum(int(tensor.numel()) for tensor in aligned)


def norm_element_bytes() -> int:
    from deepspeed.runtime.zero.utils import get_norm_dtype

    return torch.finfo(get_norm_dtype()).bits // 8


class Aio:
    """The asynchronous I/O handle, without a disk."""

    def __init__(self, **_: Any) -> None:
        pass

    def new_cpu_locked_tensor(self, elements: int, example: torch.Tensor) -> torch.Tensor:
        return torch.empty(elements, dtype=example.dtype)


def nvme_optimizer_bytes(share: int, sub_group: int) -> int:
    """ZeRO-3's own pool of swap buffers, and the accumulated fp32 gradients."""
    from deepspeed.runtime.swap_tensor import utils
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils.dist, "get_rank", lambda *_: 1)
        count = DeepSpeedZeroOffloadOptimizerConfig(device="nvme").buffer_count
        pool = utils.SwapBufferManager(sub_group, count, torch.float32, Aio())
    return sum(int(buffer.nbytes) for buffer in pool.all_buffers) + 4 * share


def nvme_parameter_bytes(share: int, sub_group: int, kept: int) -> int:
    """bf16: ZeRO-3's own flat buffer of what stays in host memory, its pool of swap buffers, and where some
    do not stay, a sub-group's buffer."""
    from deepspeed.runtime.zero import stage3
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadParamConfig

    optimizer = SimpleNamespace(
        trainable_param_groups=[{"params": [SimpleNamespace(partition_numel=lambda: share)]}],
        params_in_nvme_and_cpu=True,
        max_params_in_cpu=kept,
        param_groups_fp16_flat_cpu_memory=[],
        dtype=torch.bfloat16,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage3.dist, "get_rank", lambda *_: 1)
        stage3.DeepSpeedZeroOptimizer_Stage3._create_param_groups_fp16_flat_cpu_memory(optimizer)
    (flat,) = optimizer.param_groups_fp16_flat_cpu_memory
    config = DeepSpeedZeroOffloadParamConfig(device="nvme")
    reserved = sub_group if flat.numel() < share else 0
    return int(flat.nbytes + 2 * (config.buffer_count * config.buffer_size + reserved))


def wrong_files(cost: Cost) -> Iterator[str]:
    """Of an optimizer on NVMe: the parameter, the states that AdamW makes for it, and its gradient."""
    parameter = torch.zeros(1000, requires_grad=True)
    parameter.grad = torch.zeros(1000)
    optimizer = torch.optim.AdamW([parameter], fused=True)
    optimizer.step()
    states = [state for state in optimizer.state[parameter].values() if state.numel() == 1000]
    files = sum(tensor.numel() * tensor.element_size() for tensor in (parameter, parameter.grad, *states))
    stage_3 = matrix()[0].settings._replace(data_parallel_size=1, zero_stage=3)
    sizes = StageSizes(1000, 1000, 1000, ((1000, 1),))
    expected_files: dict[Offload, int] = {"none": 0, "cpu": 0, "nvme": files}
    for place, expected in expected_files.items():
        settings = stage_3._replace(offload_optimizer=place)
        if cost.model_states.model_states(sizes, settings).nvme_bytes != expected:
            yield f"files of an optimizer on {place}"
    on_host = stage_3._replace(offload_optimizer="cpu", offload_parameters="cpu")
    if cost.model_states.model_states(sizes, on_host).nvme_bytes != 0:
        yield "files of parameters in host memory"
    plain = stage_3._replace(zero_stage=1)
    if cost.model_states.model_states(sizes, plain).nvme_bytes != 0:
        yield "files without offload"


def wrong_offload(cost: Cost) -> Iterator[str]:
    """Offloaded activations beside those that stay, of layers that save nothing but their input: what the
    host gets, and how much less is held after forward and at the peaks of forward and backward."""
    output = [2 * WIDE, 2 * WIDE, 2 * WIDE, 2 * WIDE, WIDE]
    layers = [
        cost.layer_bytes.LayerBytes(saved=0, output=size, side=0, forward_transient=0, backward_transient=0)
        for size in output
    ]
    for start in (0, 1):
        for interval in (1, 2):
            case = matrix()[0].settings._replace(
                pipeline_parallel_size=1 + start,
                data_parallel_size=1,
                activation_checkpoint_interval=interval,
                gradient_accumulation_steps=1,
                dtype="fp32",
                gradient_accumulation_dtype="fp32",
            )
            found = [
                cost.activations.stage_activations(
                    layers, case._replace(offload_activations=moved), start, start, len(layers)
                )
                for moved in (False, True)
            ]
            kept, moved = found
            real_kept, real_moved = (offload_run(start, interval, offloads) for offloads in (False, True))
            if (kept.host_bytes, moved.host_bytes) != (0, real_moved.host):
                yield f"host memory of activations from layer {start}, interval {interval}"
            if moved.stash_bytes - kept.stash_bytes != real_moved.after - real_kept.after:
                yield f"what is left of activations from layer {start}, interval {interval}"
            ours = moved.forward_bytes - kept.forward_bytes
            # A longer segment's forward holds more for a moment, which is less than its recomputation does.
            if interval == 1 and ours != real_moved.forward - real_kept.forward:
                yield f"forward with activations offloaded from layer {start}, interval {interval}"
            ours = moved.stash_bytes + moved.backward_bytes - kept.stash_bytes - kept.backward_bytes
            if ours != real_moved.backward - real_kept.backward:
                yield f"backward with activations offloaded from layer {start}, interval {interval}"


WIDE = 40_000
"""Bytes of the latents, and of the last layer's output; hidden states are twice as large."""


class OffloadRun(NamedTuple):
    """Bytes in host memory, and on the device after a forward and at the peaks of forward and backward."""

    host: int
    after: int
    forward: int
    backward: int


@cache
def offload_run(start: int, interval: int, offloads: bool) -> OffloadRun:
    """Of the trainer's own segments."""
    from vdsgen.model.activation_offload import ActivationOffload
    from vdsgen.model.pipeline import run_segments
    from vdsgen.profile.live_bytes import HOST, LiveBytes

    books = LiveBytes()
    offload = ActivationOffload() if offloads else None
    layers: list[torch.nn.Module] = [Doubling(), Cosine(), Cosine(), Cosine(), Halving()]
    received = torch.zeros(WIDE // 4 * (1 + start), requires_grad=start > 0)
    with books:
        if offload is not None:
            take = offload.buffers.take
            offload.buffers.take = lambda *a, **k: _owned(books, HOST, take, *a, **k)  # type: ignore[method-assign]
        books.forget_peaks()
        output = run_segments(layers[start:], (received.clone(),), interval, offload)[0]
        forward, after = books.peak_bytes, books.live_bytes
        gradient = torch.ones_like(output)
        books.forget_peaks()
        output.backward(gradient)
        backward = books.peak_bytes
        host = books.live_of(HOST)
    return OffloadRun(host, after, forward, backward)


def _owned(books: Any, owner: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    with books.owner(owner):
        return function(*args, **kwargs)


class Doubling(torch.nn.Module):
    """As an embedding: its output is wider than its input, and needs a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].repeat(2) + self.scale,)


class Cosine(torch.nn.Module):
    """Saves its input, which is the layer's before."""

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].cos(),)


class Halving(torch.nn.Module):
    """Saves its input, or checkpointing would forget it at once."""

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        first, second = inputs[0].chunk(2)
        return (first * second,)
