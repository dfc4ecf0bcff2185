"""Files that are read while others write them."""

from __future__ import annotations

import os
from pathlib import Path

from vdsgen.runs.tail import MOST_LINE_BYTES, Tail, last_lines


def test_whole_lines_alone_are_read_each_once(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_bytes(b"one\ntw")
    assert tail.lines() == ["one"]
    with path.open("ab") as stream:
        stream.write(b"o\nthree\n")
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []
    assert not tail.began_anew


def test_a_file_that_was_replaced_is_read_from_its_top_even_where_it_is_longer(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"old 1\nold 2\nhal")
    tail = Tail(path)
    tail.lines()
    other = tmp_path / "other"
    other.write_bytes(b"new 1\nnew 2\nnew 3\nnew 4\n")
    other.replace(path)
    assert tail.lines() == ["new 1", "new 2", "new 3", "new 4"]
    assert tail.began_anew
    path.unlink()
    assert tail.lines() == [] and tail.began_anew
    path.write_bytes(b"again\n")
    assert tail.lines() == ["again"]


def test_a_file_that_was_cut_is_read_from_its_top(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"1\n2\n3\n")
    tail = Tail(path)
    tail.lines()
    path.write_bytes(b"1\n")
    assert tail.lines() == ["1"] and tail.began_anew


def test_only_the_end_of_what_is_there_already(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"first line\nsecond line\nthird\n")
    assert Tail(path, last_bytes=0).lines() == []
    assert Tail(path, last_bytes=10).lines() == ["third"], "a line that began before is none"
    assert Tail(path, last_bytes=1000).lines() == ["first line", "second line", "third"]


def test_endless_lines_pipes_and_folders_keep_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * (MOST_LINE_BYTES + 10))
    tail = Tail(path)
    assert tail.lines() == []
    with path.open("ab") as stream:
        stream.write(b"xx\nshort\n")
    assert tail.lines() == ["short"]
    os.mkfifo(tmp_path / "pipe")
    assert Tail(tmp_path / "pipe").lines() == []
    assert Tail(tmp_path).lines() == []


def test_last_lines_leave_blank_ones_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\n\nb\n  \nc\n")
    assert last_lines(tmp_path / "log", 2) == ["b", "c"]
    assert last_lines(tmp_path / "none", 2) == []
