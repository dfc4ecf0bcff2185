from __future__ import annotations

from pathlib import Path

from tests.launch.test_start import complete_checkpoint
from vdsgen.model.leftovers import remove_half_written


def test_only_half_written_checkpoints_are_removed(tmp_path: Path) -> None:
    whole = complete_checkpoint(tmp_path, 5)
    damaged = complete_checkpoint(tmp_path, 6)
    (damaged / "weights.pt").write_bytes(b"cut")
    half = complete_checkpoint(tmp_path, 7)
    (half / "complete.json").unlink()
    folder = whole.parent
    (folder / "latest").write_text("step-00000005")
    (folder / "mine").mkdir()
    (folder / "step-00000008").symlink_to(folder / "mine")
    assert remove_half_written(tmp_path) == [half]
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["latest", "mine", "step-00000005", "step-00000006", "step-00000008"]
    assert remove_half_written(tmp_path / "none") == []
