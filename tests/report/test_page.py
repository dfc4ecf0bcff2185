"""The page: it asks nothing of the network, runs nothing but its own scripts, and shows any text as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest

from vdsgen.errors import VdsgenError
from vdsgen.report.page import MARK, SCRIPTS, page
from vdsgen.report.section import Fact, Figure, Media, Report, Section, Subject, Table

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028&amp;\"'"
ATTRIBUTES = re.compile(r'(?:src|href)="([^"]*)"')


def figure(**changes: Any) -> Figure:
    return Figure(
        **{
            "id": "one",
            "title": "One",
            "chart": "lines",
            "data": {"x": {}, "y": {}, "series": []},
            "table": Table(head=["x", "y"], rows=[["1", "2"]]),
            "description": "A line.",
            **changes,
        }
    )


def report(*figures: Figure, media: tuple[Media, ...] = (), name: str = "plan") -> Report:
    subject = Subject(name, [Fact("a step takes", "3 s", name, "good")], name)
    section = Section("first", "First", ["Words."], figures, [Table(["a"], [[name]])], media)
    return Report(name, [subject], [section], [name])


class Parsed(HTMLParser):
    """Scripts, styles and texts of a page, as a browser splits them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.blocks: list[tuple[str, dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs)) if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.blocks.append((*self._open, data))
            self._open = None
        else:
            self.texts.append(data)


def test_the_same_report_gives_the_same_bytes_and_says_what_it_is() -> None:
    content = page(report(figure()))
    assert content == page(report(figure()))
    assert content.decode().splitlines()[:2] == ["<!doctype html>", MARK]


def test_the_policy_names_the_hash_of_every_script_and_style_and_nothing_else() -> None:
    parsed = Parsed(page(report(figure())).decode())
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in parsed.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy
    hashes = {"script": [], "style": []}  # type: dict[str, list[str]]
    for tag, attributes, text in parsed.blocks:
        if attributes.get("type") != "application/json":
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            hashes[tag].append(f"'sha256-{digest}'")
    assert rules["script-src"].split() == hashes["script"]
    assert rules["style-src"].split() == hashes["style"]
    assert len(hashes["script"]) == len(SCRIPTS)


def test_nothing_is_fetched_and_no_handler_or_style_stands_in_an_attribute() -> None:
    clip = Media("film", "Film", "video/mp4", b"\x00\x01", "a film")
    parsed = Parsed(page(report(figure(), media=(clip,))).decode())
    for tag, attributes in parsed.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)


def test_hostile_text_is_shown_as_text_wherever_it_stands() -> None:
    hostile = figure(
        title=HOSTILE,
        description=HOSTILE,
        note=HOSTILE,
        data={"series": [{"name": HOSTILE}]},
        table=Table([HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]], HOSTILE),
    )
    picture = Media("picture", HOSTILE, "image/png", b"png", HOSTILE)
    text = page(report(hostile, media=(picture,), name=HOSTILE)).decode()
    parsed = Parsed(text)
    assert "alert(1)" in "".join(parsed.texts)
    assert len([tag for tag, _ in parsed.tags if tag == "script"]) == len(SCRIPTS) + 1
    (data,) = [block for _, attributes, block in parsed.blocks if attributes.get("id") == "data"]
    assert json.loads(data)["charts"]["one"]["data"]["series"][0]["name"] == HOSTILE
    assert "<" not in data


def test_two_parts_of_one_id_are_refused_and_so_is_what_json_lacks() -> None:
    with pytest.raises(VdsgenError, match="called one"):
        page(report(figure(), figure()))
    with pytest.raises(ValueError, match="JSON"):
        page(report(figure(data={"value": float("nan")})))


def test_no_script_can_end_its_element() -> None:
    for name in SCRIPTS:
        text = resources.files("vdsgen.report").joinpath(name).read_text()
        assert not re.search(r"</script|<!--", text, re.IGNORECASE), name


def test_the_chart_library_is_the_one_that_is_recorded() -> None:
    vendor = resources.files("vdsgen.report").joinpath("vendor")
    record = json.loads(vendor.joinpath("echarts.json").read_text())
    script = vendor.joinpath("echarts.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == record["sha256"], "run vdsgen.report.build_charts"
    entry = vendor.joinpath("entry.mjs").read_bytes()
    assert hashlib.sha256(entry).hexdigest() == record["entry_sha256"], "run vdsgen.report.build_charts"
    locked = json.loads(vendor.joinpath("package-lock.json").read_text())["packages"]
    for name, package in record["packages"].items():
        assert locked[f"node_modules/{name}"]["version"] == package["version"]
        assert locked[f"node_modules/{name}"]["integrity"] == package["integrity"]
    assert record["license"] == record["packages"]["echarts"]["license"] == "Apache-2.0"
    assert "Apache License" in vendor.joinpath("LICENSE-echarts.txt").read_text()
    assert "Redistribution" in vendor.joinpath("LICENSE-zrender.txt").read_text()
    assert len(script) < 750_000
