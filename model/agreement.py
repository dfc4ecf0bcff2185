"""What one rank finds out, or every rank for itself, known to all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator

from vdsgen.errors import VdsgenError
from vdsgen.model.console import is_first_rank

T = TypeVar("T")


def known_to_all(find: Callable[[], T]) -> T:
    """What `find` gives on rank 0, on every rank. Collective. Raises its VdsgenError or OSError on every
    rank."""
    found: list[Any] = [None]
    if is_first_rank():
        found = [_answer(find)]
    device = torch.device(get_accelerator().current_device_name())
    torch.distributed.broadcast_object_list(found, src=0, device=device)
    if isinstance(found[0], VdsgenError | OSError):
        raise found[0]
    result: T = found[0]
    return result


def everybodys(answer: Callable[[], T]) -> list[T]:
    """What `answer` gives on each rank, in their order. Collective. Raises the first rank's VdsgenError or
    OSError on every rank."""
    answers: list[Any] = [None] * dist.get_world_size()
    torch.distributed.all_gather_object(answers, _answer(answer))
    for each in answers:
        if isinstance(each, VdsgenError | OSError):
            raise each
    return answers


def _answer(find: Callable[[], T]) -> T | VdsgenError | OSError:
    try:
        return find()
    except VdsgenError as error:
        return VdsgenError(error.message, remedy=error.remedy)  # without its causes, which may not travel
    except OSError as error:
        return error
