from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.errors import InputError, Problem
from vdsgen.spec.source import Source, dotted, key_path
from vdsgen.spec.text_file import MAX_BYTES
from vdsgen.spec.yaml_source import MAX_PROBLEMS, parse_yaml, read_yaml


def problems_of(text: str) -> list[Problem]:
    with pytest.raises(InputError) as raised:
        parse_yaml(text, "lab.yaml")
    return list(raised.value.problems)


def only_problem(text: str) -> Problem:
    (problem,) = problems_of(text)
    return problem


def test_values_keep_their_places() -> None:
    source = Source(parse_yaml("a: 1\nlist:\n  - x: {y: two}\n  - z\n", "f.yaml"))
    assert source.root.plain() == {"a": 1, "list": [{"x": {"y": "two"}}, "z"]}
    place = source.place_of_value(("list", 0, "x", "y"))
    assert (place.file, place.line, place.column) == ("f.yaml", 3, 12)
    assert source.place_of_value(("list", 1)).line == 4
    assert source.place_of_key(("list",)).line == 2
    missing = source.place_of_key(("list", 0, "x", "nothing", "below"))
    assert (missing.line, missing.column) == (3, 5), "the nearest parent that is there"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~"])
def test_an_empty_file_is_called_empty(text: str) -> None:
    assert only_problem(text).message == "is empty"


def test_a_second_document_is_refused_at_its_line() -> None:
    problem = only_problem("a: 1\n---\nb: 2\n")
    assert "second document" in problem.message
    assert problem.line == 2


def test_duplicate_keys_name_both_lines() -> None:
    problem = only_problem("a: 1\nb: 2\na: 3\n")
    assert (problem.line, problem.column) == (3, 1)
    assert "'a'" in problem.message
    assert "line 1" in problem.message


@pytest.mark.parametrize("key", ["1", "1.5", "true", "~", "[a, b]", "{a: b}"])
def test_keys_that_are_no_text_are_refused(key: str) -> None:
    problem = only_problem(f"? {key}\n: 1\n")
    assert "a key must be text" in problem.message
    assert problem.line == 1


@pytest.mark.parametrize("key", ["yes", "no", "on", "2024-01-01", "'1'"])
def test_keys_that_yaml_1_1_would_convert_stay_text(key: str) -> None:
    assert parse_yaml(f"{key}: 1", "f").plain() == {key.strip("'"): 1}


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system ['true']", "!!str 3", "!local x", "!!set {a}", "!!binary aGk="]
)
def test_tags_are_refused_and_run_nothing(value: str) -> None:
    problem = only_problem(f"a: {value}\n")
    assert problem.message.startswith("tag ")
    assert (problem.line, problem.column) == (1, 4)


def test_several_problems_come_at_once_in_order() -> None:
    lines = [problem.line for problem in problems_of("a: .nan\na: 2\n<<: {b: 1}\n3: x\nc: !t d\ne: 0777\n")]
    assert lines == [1, 2, 3, 4, 5, 6]


def test_a_file_of_mistakes_stops_at_a_screenful() -> None:
    assert len(problems_of("a: 1\n" * 1000)) == MAX_PROBLEMS


def test_syntax_errors_have_a_place_and_tabs_a_remedy() -> None:
    problem = only_problem("a:\n\tb: 1\n")
    assert problem.line == 2
    assert problem.remedy is not None
    assert "tabs" in problem.remedy
    assert only_problem("a: b: c").line == 1
    assert only_problem("a: [1, 2").line is not None


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [" + ", ".join(["lol"] * width) + "]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * width) + "]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(9, 9),
        "a: &a '" + "x" * 100_000 + "'\nb: [" + "*a, " * 50_000 + "]",
        "[" * 500_000,
        "{a: " * 200_000,
        "- " * 400_000,
        "? " * 400_000,
        "a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 10 + "*a" + "]" * 10,
        "x: &x [*x]",
        "[" + "[]," * 330_000 + "]",
        "a: &a &a &a",
    ],
    ids=[
        "aliases",
        "long text",
        "flow",
        "maps",
        "blocks",
        "keys",
        "alias depth",
        "itself",
        "wide",
        "anchors",
    ],
)
def test_bombs_cost_little_and_are_refused(text: str) -> None:
    start = time.process_time()
    problem = problems_of(text)[0]
    assert time.process_time() - start < 5
    assert problem.line is not None


def test_modest_aliases_are_read_and_point_at_what_they_repeat() -> None:
    source = Source(parse_yaml("a: &gpu {memory_gib: 3}\nb: *gpu\n", "f"))
    assert source.root.plain() == {"a": {"memory_gib": 3}, "b": {"memory_gib": 3}}
    assert source.place_of_value(("b", "memory_gib")).line == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfea\x00", "not UTF-8"),
        (b"a: 1\nb: \xc3\x28\n", "not UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00", "control character"),
        (b"a: 1\x00\n", "control character"),
        (b"#" * (MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_files_that_are_no_text_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        read_yaml(path)
    assert raised.value.problems[0].file == str(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path).root.plain() == {"a": 1}


def test_a_missing_file_names_the_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"no such file(.|\n)*did you mean .*lab\.yaml"):
        read_yaml(tmp_path / "lab.yml")
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "nowhere" / "lab.yml")


def test_a_directory_and_an_odd_path_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        read_yaml(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(Path("a\0b"))
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(Path("x" * 5000))


def test_endless_files_are_read_no_further_than_the_limit() -> None:
    with pytest.raises(InputError, match="larger than 1 MiB"):
        read_yaml(Path("/dev/zero"))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    try:
        read_yaml(path)
    except InputError as error:
        assert all(problem.message for problem in error.problems)


@given(st.text(alphabet="ab: -[]{}&*!'\"\n#|>?,%~0", max_size=80))
def test_any_punctuation_is_read_or_refused(text: str) -> None:
    try:
        parse_yaml(text, "f").plain()
    except InputError as error:
        assert all(problem.message for problem in error.problems)


@given(st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True) | st.integers(0, 99), min_size=1, max_size=6))
def test_dotted_keys_and_paths_are_two_ways_to_write_the_same(parts: list[str | int]) -> None:
    path = ("root", *parts)
    assert key_path(dotted(path)) == path


def test_messages_stay_on_one_line_whatever_a_key_holds() -> None:
    shown = dotted(("a", "b\x1b[31m\nc", "d" * 500))
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert len(shown) < 150
