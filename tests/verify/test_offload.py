"""Plans that keep something in host memory go through without memory: device and host bytes are those
planned, and those of real ranks."""

from __future__ import annotations

import pytest

from tests.cost.engine_cases import PERSISTENCE_THRESHOLD
from tests.verify.cases import GEOMETRY, MODEL, as_case, settings_of, trace
from vdsgen.catalog.load import models
from vdsgen.catalog.profiles import profile_for
from vdsgen.cost import engine_defaults
from vdsgen.cost.memory import MemoryModel
from vdsgen.cost.settings import Settings
from vdsgen.spec.dtypes import Dtype
from vdsgen.verify.figures import StageTrace, compare, fullest

pytestmark = pytest.mark.slow

HALF: tuple[Dtype, Dtype] = ("bf16", "fp32")
SINGLE: tuple[Dtype, Dtype] = ("fp32", "fp32")
MODES = {
    "ZeRO-1": settings_of(1, 2, 1, HALF, 1)._replace(offload_optimizer="cpu"),
    "ZeRO-2, sums on the host": settings_of(1, 2, 2, SINGLE, 1)._replace(offload_optimizer="cpu"),
    "ZeRO-3, parameters": settings_of(1, 2, 3, HALF, 1)._replace(
        offload_optimizer="cpu", offload_parameters="cpu"
    ),
    "all": settings_of(1, 2, 2, HALF, 3)._replace(offload_optimizer="cpu", offload_activations=True),
}
BOUNDS = {2: ("workspace",), 3: ("workspace", "communication", "peak")}
"""By ZeRO stage, what is planned for the worst and never more here: a parameter as large as the embedding's
comes last, and ZeRO-3 gathers as much as it may, which is more than this model has."""
SCALAR_BYTES = 1024


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageTrace]:
    """As `vdsgen verify` traces: of the ranks that need most of something."""
    folder = tmp_path_factory.mktemp("offload")
    (first,) = trace("gpu", [(0, [as_case(settings, 0) for settings in MODES.values()])], 2, folder)
    found = dict(zip(MODES, first, strict=True))
    both = [name for name, settings in MODES.items() if settings.zero_stage == 2]
    (second,) = trace("gpu", [(1, [as_case(MODES[name], 0) for name in both])], 2, folder)
    return found | {name: fullest([found[name], other]) for name, other in zip(both, second, strict=True)}


@pytest.mark.parametrize("mode", MODES)
def test_what_was_held_is_what_is_planned(
    mode: str, traces: dict[str, StageTrace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_defaults, "STAGE3_PARAM_PERSISTENCE_THRESHOLD", PERSISTENCE_THRESHOLD)
    demo = profile_for(models()["vdt-demo"].sizes)
    assert demo is not None
    profile = demo.model_copy(update={"layers": ("embed", *("block",) * MODEL.depth, "final")})
    model, settings, found = MemoryModel(profile, GEOMETRY), MODES[mode], traces[mode]
    memory = model.stage_memory(settings, 0, *found.layers, 80 * 2**30).spec()
    host = model.outside_bytes(settings, 0, *found.layers).host_bytes
    assert host > 0
    rows = compare(memory, found, negligible_bytes=0, planned_host_bytes=host)
    wrong = [
        f"{row.component} planned {row.planned_bytes}, traced {row.traced_bytes} ({row.ratio})"
        for row in rows
        if not (
            row.within or (row.component in BOUNDS.get(settings.zero_stage, ()) and (row.ratio or 1) >= 1)
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_real_ranks_hold_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("real")
    names = ("ZeRO-2, sums on the host",)
    cases = [as_case(MODES[name], 0) for name in names]
    real = trace("real", [(0, cases), (1, cases)], 2, folder)
    for rank in range(2):
        (fake,) = trace("fake", [(rank, cases)], 2, folder)
        for name, expected, found in zip(names, real[rank], fake, strict=True):
            for key, value in expected.model_dump(exclude={"seconds", "resident_bytes"}).items():
                traced = getattr(found, key)
                same = value == traced or (isinstance(value, int) and abs(value - traced) <= SCALAR_BYTES)
                assert same, f"{name}, rank {rank}: {key} {value}, without memory {traced}"


def test_every_mode_moves_something() -> None:
    on_gpu = Settings._field_defaults
    for settings in MODES.values():
        assert any(
            getattr(settings, key) != on_gpu[key]
            for key in ("offload_optimizer", "offload_parameters", "offload_activations")
        )
