"""What a traced rank is fed."""

from __future__ import annotations

from weakref import ref

from tests.verify.cases import GEOMETRY, MODEL
from vdsgen.verify.stage import empty_batches


def test_a_micro_batch_goes_when_the_engine_lets_it_go() -> None:
    """As the trainer's loader gives them: it keeps none, and its memory is the host's anyway."""
    batches = empty_batches(MODEL, GEOMETRY, 2, 2, lambda share: None)
    inputs, target = next(batches)
    storages = [ref(tensor.untyped_storage()) for tensor in (*inputs, target)]
    del inputs, target
    assert all(storage() is None for storage in storages)
