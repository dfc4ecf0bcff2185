"""Hosts that do not run the same are named, with what most of them run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.hosts.made import facts
from vdsgen.launch.hosts.versions import compare_rendered, compare_versions

SAME = facts().versions


def test_equal_hosts_have_no_finding() -> None:
    assert compare_versions({"a": facts(), "b": facts(), "c": facts()}) == []


@pytest.mark.parametrize(
    ("package", "value", "severity"),
    [
        ("torch", "2.6.0", "error"),
        ("NCCL", "2.20.0", "error"),
        ("CUDA", "12.4", "error"),
        ("python", "3.12.1", "error"),
        ("python", "3.11.2", "warning"),
        ("numpy", "2.0.0", "warning"),
        ("transformers", "4.50.0", "warning"),
    ],
)
def test_the_odd_one_out_is_named(package: str, value: str, severity: str) -> None:
    hosts = {"a": facts(versions=SAME | {package: value}), "b": facts(), "c": facts()}
    (found,) = compare_versions(hosts)
    usual = SAME.get(package, "none")
    assert (found.host, found.severity) == ("a", severity)
    assert found.message == f"{package} is {value}, on b, c {usual}"


def test_of_two_hosts_the_first_is_taken_for_right() -> None:
    (found,) = compare_versions({"a": facts(), "b": facts(driver="535.1")})
    assert (found.host, found.severity) == ("b", "warning")


def test_a_package_that_is_not_there_is_told_once() -> None:
    lacking = {name: value for name, value in SAME.items() if name not in ("torch", "av")}
    (found,) = compare_versions({"a": facts(), "b": facts(versions=lacking)})
    assert (found.host, found.message) == ("b", "torch, av are not installed")


def test_the_same_version_with_other_modules_is_told() -> None:
    (found,) = compare_versions({"a": facts(), "b": facts(code_sha256="d" * 64)})
    assert "vdsgen's modules" in found.message
    # Of another version everybody knows that its modules are others.
    older = facts(code_sha256="d" * 64, versions=SAME | {"vdsgen": "0.0.9"})
    assert [one.message for one in compare_versions({"a": facts(), "b": older})] == [
        "vdsgen is 0.0.9, on a 0.1.0"
    ]


def test_a_rendered_directory_has_the_same_bytes_everywhere() -> None:
    here = {"plan.json": "p" * 64, "train.yaml": "t" * 64}
    same, edited = facts(rendered=here), facts(rendered=here | {"train.yaml": "x" * 64})
    found = compare_rendered(Path("plan"), here, {"a": same, "b": edited, "c": facts()})
    assert [(one.host, one.message) for one in found] == [
        ("b", "plan: train.yaml has other bytes there than here"),
        ("c", "plan has no train.yaml there"),
    ]
