"""Books of what is alive: owners, phases, and what kernels hide."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vdsgen.profile.live_bytes import HOST, LiveBytes, storage_bytes

MIB = 2**20


def mib(count: int) -> torch.Tensor:
    return torch.zeros(count * MIB, dtype=torch.uint8)


@pytest.fixture(params=["real", "fake"])
def tensors(request: pytest.FixtureRequest) -> object:
    """Contents make no difference."""
    return FakeTensorMode() if request.param == "fake" else torch.enable_grad()


def test_a_storage_counts_once_until_it_dies(tensors: FakeTensorMode) -> None:
    books = LiveBytes()
    with tensors, books:
        first = mib(3)
        view = first[MIB:]
        second = mib(2)
        assert books.live_bytes == 5 * MIB
        del first
        assert books.live_bytes == 5 * MIB
        del view
        assert books.live_bytes == 2 * MIB
        assert books.peak_bytes == 5 * MIB
        assert storage_bytes([second, second[1:]]) == 2 * MIB


def test_owners_have_peaks_of_their_own(tensors: FakeTensorMode) -> None:
    books = LiveBytes()
    with tensors, books:
        weights = mib(4)
        books.claim([weights], "states")
        with books.phase("compute"):
            activation = mib(3)
            with books.owner("buckets"):
                bucket = mib(2)
                books.claim([bucket], "states")  # too late: it has an owner
            del bucket
            books.claim([activation], "states")
            again = mib(1)
        assert books.peak_of("compute") == 9 * MIB
        assert books.peak_of("compute", owner="buckets") == 2 * MIB
        assert books.peak_of("compute", owner="") == 3 * MIB
        assert books.owned([weights, activation, again], "states") == [weights, activation]
        del weights, activation, again
        assert books.live_bytes == 0
        assert books.peak_of("step") == 0


def test_what_lies_in_host_memory_is_counted_apart(tensors: FakeTensorMode) -> None:
    books = LiveBytes()
    with tensors, books, books.phase("compute"):
        with books.owner(HOST):
            moved = mib(4)
        states = mib(2)
        assert (books.live_bytes, books.peak_of("compute")) == (2 * MIB, 2 * MIB)
        books.claim([states], HOST)
        assert (books.live_bytes, books.peak_of("compute", owner=HOST)) == (0, 6 * MIB)
        del moved, states
        assert books.live_bytes == 0


def test_what_kernels_hide_counts_while_they_run(tensors: FakeTensorMode) -> None:
    aten = torch.ops.aten
    books = LiveBytes(lambda func, _: 7 * MIB if func.overloadpacket is aten.add else 0)
    with tensors, books, books.phase("compute"):
        one = mib(1)
        two = one + one
        assert books.live_bytes == 2 * MIB
        assert books.peak_of("compute", owner="") == 9 * MIB
        del one, two


def test_a_phase_within_a_phase_has_the_peak_alone(tensors: FakeTensorMode) -> None:
    books = LiveBytes()
    with tensors, books, books.phase("compute"):
        kept = mib(1)
        with books.phase("reduce"):
            mib(5)
        assert books.peak_of("reduce") == 6 * MIB
        assert books.peak_of("compute") == MIB
        books.forget_peaks()
        assert books.peak_bytes == MIB
        del kept
