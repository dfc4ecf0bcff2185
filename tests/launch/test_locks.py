from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vdsgen.errors import VdsgenError
from vdsgen.launch.locks import compiles_operators, extensions_folder, stale_locks
from vdsgen.launch.start import check_locks


def lock(folder: Path, name: str) -> Path:
    path = folder / name / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_only_locks_that_nobody_holds_are_stale(tmp_path: Path) -> None:
    left = lock(tmp_path, "py311_cpu/deepspeed_shm_comm")
    held = lock(tmp_path, "cpu_adam")
    with held.open():
        assert stale_locks(tmp_path) == [left]
    assert stale_locks(tmp_path) == [held, left]


def test_torch_itself_agrees_which_locks_are_held(tmp_path: Path) -> None:
    baton_module = pytest.importorskip("torch.utils.file_baton")
    (tmp_path / "cpu_adam").mkdir()
    baton = baton_module.FileBaton(str(tmp_path / "cpu_adam" / "lock"))
    assert baton.try_acquire()
    assert stale_locks(tmp_path) == []
    baton.release()
    assert stale_locks(tmp_path) == []


def test_the_folder_is_the_one_torch_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extension = pytest.importorskip("torch.utils.cpp_extension")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    assert Path(extension.get_default_build_root()) == extensions_folder({"XDG_CACHE_HOME": str(tmp_path)})
    assert extensions_folder({"TORCH_EXTENSIONS_DIR": "/x"}) == Path("/x")


def test_a_start_that_would_wait_for_ever_is_refused(tmp_path: Path) -> None:
    left = lock(tmp_path, "cpu_adam")
    with pytest.raises(VdsgenError, match=r"cpu_adam/lock[^$]*--clear-stale-locks"):
        check_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path)}, needed=True, clear=False)
    assert left.exists()
    check_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path)}, needed=True, clear=True)
    assert not left.exists()
    check_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path / "none")}, needed=True, clear=False)


def test_a_start_that_compiles_nothing_only_mentions_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = lock(tmp_path, "cpu_adam")
    check_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path)}, needed=False, clear=False)
    assert left.exists()
    assert f"{left}\n  This run compiles nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "compiles"),
    [
        ({}, False),
        ({"optimizer": {"type": "AdamW", "params": {"torch_adam": True}}}, False),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}, True),
        ({"optimizer": {"type": "Lion"}}, True),
        (
            {
                "optimizer": {"type": "AdamW", "params": {"torch_adam": True}},
                "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
            },
            False,
        ),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}}, True),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "none"}}}, False),
    ],
)
def test_what_deepspeed_compiles_for(config: dict[str, Any], compiles: bool) -> None:
    assert compiles_operators(config) is compiles
