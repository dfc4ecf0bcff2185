"""Reading measurements: numbers, cells that are none, and files that are no table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.published.rows import GPT, row, written
from vdsgen.errors import InputError, VdsgenError
from vdsgen.published.row import BUNDLED, COLUMNS, read_rows, selected


def test_the_bundled_file_has_426_rows_and_all_cells_are_read() -> None:
    rows = read_rows(BUNDLED)
    assert len(rows) == 426
    assert [one.line for one in rows] == list(range(2, 428))
    assert not [one.line for one in rows if one.unreadable]
    assert sum(one.number("peak_mem_gb") is not None for one in rows) == 289


def test_numbers_are_numbers_and_empty_cells_are_none(tmp_path: Path) -> None:
    one = row(tmp_path, params_b="1,000.5", zero_stage="0", frames="")
    assert one.numbers["params_b"] == 1000.5
    assert one.whole("zero_stage") == 0
    assert one.number("frames") is None
    assert one.unreadable == ()


@pytest.mark.parametrize("cell", ["many", "-1", "0", "nan", "inf", "1e99", "2.5", "4096x"])
def test_a_bad_cell_spoils_its_row_alone(tmp_path: Path, cell: str) -> None:
    bad, good = read_rows(written(tmp_path / "two.csv", {**GPT, "hidden": cell}, GPT))
    assert bad.unreadable == ("hidden",)
    assert good.unreadable == ()


def test_columns_may_be_in_any_order_and_more(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    names = [*reversed(COLUMNS), "extra"]
    path.write_text(",".join(names) + "\n" + ",".join(GPT.get(name, "").replace(",", ";") for name in names))
    assert read_rows(path)[0].whole("hidden") == 1024


def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path) -> None:
    other, binary = tmp_path / "other.csv", tmp_path / "binary.csv"
    other.write_text("a,b\n1,2\n")
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="lacks the columns source_repo_or_paper"):
        read_rows(other)
    with pytest.raises(InputError, match="not UTF-8"):
        read_rows(binary)


def test_rows_are_chosen_by_line(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / "some.csv", *[GPT] * 5))
    assert [one.line for one in selected(rows, "2-3, 6")] == [2, 3, 6]
    assert len(selected(rows, None)) == 5
    for text in ("", "x", "3-", "99"):
        with pytest.raises(VdsgenError):
            selected(rows, text)
