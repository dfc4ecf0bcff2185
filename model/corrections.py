"""Where DeepSpeed 0.19.8 would give another result, or need more memory, than its config says.

Each correction names the lines it puts right and has a test that fails without it. Files are below
deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from deepspeed import comm as dist
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.zero.linear import LinearFunctionForZeroStage3
from deepspeed.utils.bwc import bwc_tensor_model_parallel_rank
from torch import Tensor

from vdsgen.model.layers.tensor_parallel import is_split, mark_split


def scaled_loss(engine: Any, loss: Tensor) -> Tensor:
    """The loss times the fp16 loss scale where the engine forgets it.

    engine.backward scales for ZeRO's optimizers only (engine.py:3417); the one that fp16 gets without ZeRO
    is none of them, and still divides gradients by the scale in its step (fp16/unfused_optimizer.py:245).
    Small gradients would underflow, clipping would never happen, and Adam's epsilon would weigh 512 times
    as much.
    """
    if engine.fp16_enabled() and isinstance(engine.optimizer, FP16_UnfusedOptimizer):
        scale: float = engine.optimizer.loss_scale
        return loss.float() * scale
    return loss


def backward_pass(engine: Any, buffer_id: int) -> None:
    """PipelineEngine._exec_backward_pass (pipe/engine.py:804-876), with one traversal of the graph.

    The engine calls backward once for each tensor that a stage hands on, keeping the graph until the
    last. With non-reentrant checkpointing the recomputed activations live as long as the graph does, so
    every segment of the stage would be in memory at once: as if nothing were checkpointed. All of a
    stage's outputs are one graph; one backward from all of them frees each segment as it goes.

    Of what a stage hands on, integers get no gradient back, and for what no weight made (conditioning as it
    was loaded, or the outputs of frozen layers) nothing is done with the one that comes. A stage that had no
    use for a tensor sends zeros back, where the engine asserts a gradient (:1098).
    """
    if engine.is_last_stage():
        engine.loss = scaled_loss(engine, engine.loss)
        engine._exec_backward_pass(buffer_id)
        _fill_gradients(engine, buffer_id)
        return
    outputs = engine.pipe_buffers["outputs"][buffer_id]
    if engine.using_bf16_optimizer:
        engine.optimizer.clear_lp_grads()
    engine._running_engine_backward = True
    try:
        torch.autograd.backward(*_begun(outputs, engine.grad_layer))
    finally:
        engine._running_engine_backward = False
    if engine.using_bf16_optimizer and not engine._config.bfloat16_config.immediate_grad_update:
        engine.optimizer.update_hp_grads(clear_lp_grads=False)
    engine.pipe_buffers["output_tensors"][buffer_id] = None
    engine.pipe_buffers["outputs"][buffer_id] = None
    _fill_gradients(engine, buffer_id)


def release_before_reduction(engine: Any) -> None:
    """Under ZeRO-3, weights of modules whose inputs need no gradient go when backward is through, not after
    the reduction that follows it.

    Their hook never fires; the engine releases them (parameter_offload.py:247), but only once gradients are
    reduced (engine.py:3165, :3169). Behind a frozen first layer that is a whole block.
    """
    if engine.zero_optimization_stage() != 3:
        return
    epilogue = engine._backward_epilogue

    def released_first() -> None:
        engine.optimizer.parameter_offload.release_backward_leftovers()
        epilogue()

    engine._backward_epilogue = released_first


def save_no_inputs_of_frozen_weights() -> None:
    """Makes ZeRO-3's linear function keep its input only where the weight trains; once for the process.

    It keeps the input whatever the weight (zero/linear.py:105), as nobody else's does: of a block with
    adapters, the inputs of every frozen product, such as what an MLP's activation function puts out.
    """
    LinearFunctionForZeroStage3.setup_context = staticmethod(_linear_context)


_KEEPING_ALL = LinearFunctionForZeroStage3.setup_context


def _linear_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, *bias = inputs
    if not weight.requires_grad:
        inputs = (None, weight, *bias)
    _KEEPING_ALL(ctx, inputs, output)


def _fill_gradients(engine: Any, buffer_id: int) -> None:
    if engine.is_first_stage():
        return
    for received in engine.pipe_buffers["inputs"][buffer_id]:
        if received.is_floating_point() and received.grad is None:
            received.grad = torch.zeros_like(received)


def _begun(outputs: tuple[Tensor, ...], gradients: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs where backward begins, and their gradients. One comes back for every floating-point tensor that
    was handed on (pipe/engine.py:1193), also for those that no trained weight made; integers have none."""
    floating = [x for x in outputs if x.is_floating_point()]
    begun = [(x, gradient) for x, gradient in zip(floating, gradients, strict=True) if x.requires_grad]
    return [x for x, _ in begun], [gradient for _, gradient in begun]


def clip_across_stages(engine: Any, norm: float) -> None:
    """Clips a pipeline's fp32 gradients by the whole model's norm.

    Without ZeRO the engine clips them itself, by the norm of the first stage's gradients alone: it leaves
    out parameters whose rank in the pipeline is not 0 (utils.py:394 with pipe/topology.py:446). What is
    clipped here is short enough that the engine then leaves it as it is.
    """
    limit = engine.gradient_clipping()
    if limit <= 0 or norm <= limit:
        return
    for parameter in engine.module.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(limit / (norm + 1e-6))


def forget_initial_step(engine: Any) -> None:
    """Starts AdamW at step 0 in half precision without ZeRO, as everywhere else.

    That optimizer takes a step with zero gradients while it is built (fp16/unfused_optimizer.py:425):
    weights decay once, and bias correction is one step ahead for good.
    """
    optimizer = engine.optimizer
    if not isinstance(optimizer, FP16_UnfusedOptimizer):
        return
    for state in optimizer.optimizer.state.values():
        state["step"].zero_()
    for masters, halves in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
        for master, half in zip(masters, halves, strict=True):
            master.data.copy_(half.data)


def mark_split_gradients(engine: Any) -> None:
    """Tells half precision without ZeRO which gradients tensor-parallel ranks hold different parts of.

    That optimizer asks the gradients themselves (fp16/unfused_optimizer.py:214 with utils.py:575), which
    lack the parameters' mark: it would leave out all but the first tensor rank's parts of the norm.
    """
    if not isinstance(engine.optimizer, FP16_UnfusedOptimizer):
        return
    for parameter in engine.module.parameters():
        if is_split(parameter) and parameter.grad is not None:
            mark_split(parameter.grad)


def fp32_grad_norm(engine: Any) -> float:
    """Norm of the whole model's gradient without ZeRO in fp32, where no optimizer wrapper keeps it.

    What all tensor-parallel ranks hold alike counts once.
    """
    first = bwc_tensor_model_parallel_rank(engine.mpu) == 0
    squares = [
        p.grad.square().sum()
        for p in engine.module.parameters()
        if p.grad is not None and (first or is_split(p))
    ]
    total = torch.stack(squares).sum()
    if engine.mpu is not None:
        dist.all_reduce(total, group=engine.mpu.get_model_parallel_group())
    return float(total.sqrt())


def load_checkpoint(engine: Any, folder: Path) -> bool:
    """Loads a checkpoint's folder into the engine; False where DeepSpeed finds none.

    In a bf16 pipeline without ZeRO the engine's optimizer shares its states out (BF16_Optimizer), and saving
    writes every rank's share (engine.py:4933). Loading hands it the first rank's alone, as if nobody shared
    (:4696), which it cannot take (bf16_optimizer.py:670). The shares are loaded here, as under ZeRO (:4733).
    """
    where = {"load_dir": str(folder.parent), "tag": folder.name}
    if engine.zero_optimization() or not isinstance(engine.optimizer, BF16_Optimizer):
        return engine.load_checkpoint(**where)[0] is not None
    engine.optimizer.load_state_dict = lambda *_, **__: None
    try:
        loaded = engine.load_checkpoint(**where)[0] is not None
    finally:
        del engine.optimizer.load_state_dict
    return loaded and bool(engine._load_zero_checkpoint(**where))
