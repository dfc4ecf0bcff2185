from __future__ import annotations

import json
from pathlib import Path

from vdsgen.model.interludes import Due
from vdsgen.model.sample import sample_files


def test_what_an_earlier_start_has_left_is_not_done_again(tmp_path: Path) -> None:
    due = Due(("trained", "ema"), sample=True)
    assert due.without(tmp_path, 40) == due
    rows = [{"step": 20, "weights": "ema"}, {"step": 40, "weights": "trained"}]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = sample_files(tmp_path, 40)
    files.video.parent.mkdir()
    files.video.touch()
    assert due.without(tmp_path, 40) == Due(("ema",), sample=True), "the video is not all of a sample"
    files.consistency.touch()
    assert due.without(tmp_path, 40) == Due(("ema",), sample=False)
