"""One comment a request: written once, updated after, and nobody else's touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.review.ci.service import Service, service
from vdsgen.errors import VdsgenError
from vdsgen.review.ci.comment import MARK, MOST_CHARACTERS, comment_body, comment_on_github, comment_on_gitlab

HEAD = "a" * 40


@pytest.fixture
def server() -> Iterator[Service]:
    with service() as running:
        yield running


def github(server: Service, text: str, *, number: str = "5", head: str = HEAD) -> str:
    environment = {
        "GITHUB_API_URL": server.url,
        "GITHUB_REPOSITORY": "lab/configs",
        "GITHUB_TOKEN": "secret-token",
    }
    return comment_on_github(environment, number, head, text)


def gitlab(server: Service, text: str) -> str:
    environment = {
        "CI_API_V4_URL": server.url,
        "CI_MERGE_REQUEST_PROJECT_ID": "12",
        "CI_MERGE_REQUEST_IID": "5",
        "VDSGEN_GITLAB_TOKEN": "secret-token",
    }
    return comment_on_gitlab(environment, text)


@pytest.mark.parametrize("comment", [github, gitlab])
def test_the_second_review_takes_the_place_of_the_first(server: Service, comment) -> None:  # type: ignore[no-untyped-def]
    assert comment(server, "first") == "written"
    assert comment(server, "second") == "updated"
    assert comment(server, "second") == "unchanged"
    assert [one["body"] for one in server.comments] == [f"{MARK}\nsecond"]
    assert all("secret-token" in token for token in server.tokens)


@pytest.mark.parametrize("comment", [github, gitlab])
def test_a_comment_with_our_mark_by_somebody_else_is_left_alone(server: Service, comment) -> None:  # type: ignore[no-untyped-def]
    stranger = {"id": 666, "login": "stranger"}
    server.comments += [
        {"id": 100 + number, "body": f"{MARK}\nmine", "user": stranger, "author": stranger}
        for number in range(150)
    ]
    assert comment(server, "ours") == "written"
    assert comment(server, "ours, later") == "updated"
    assert {one["body"] for one in server.comments[:150]} == {f"{MARK}\nmine"}
    assert server.comments[150]["body"] == f"{MARK}\nours, later"


@pytest.mark.parametrize(
    ("number", "head", "message"),
    [
        ("5", "b" * 40, "is not at bbbbbbbbbb"),
        ("5/../6", HEAD, "no number"),
        ("0", HEAD, "no number"),
        ("", HEAD, "no number"),
    ],
)
def test_only_the_request_that_was_reviewed_is_commented_on(
    server: Service, number: str, head: str, message: str
) -> None:
    with pytest.raises(VdsgenError, match=message):
        github(server, "text", number=number, head=head)
    assert server.comments == []


def test_a_token_goes_nowhere_else(server: Service) -> None:
    with service() as elsewhere:
        server.redirect_to = f"{elsewhere.url}/repos/lab/configs/pulls/5"
        with pytest.raises(VdsgenError, match="302"):
            github(server, "text")
        assert elsewhere.asked == []
    environment = {"GITHUB_REPOSITORY": "lab/configs", "GITHUB_TOKEN": "secret-token"}
    for url in ("http://api.example.org", "file:///etc/passwd", "ftp://127.0.0.1", "https://"):
        with pytest.raises(VdsgenError) as caught:
            comment_on_github({**environment, "GITHUB_API_URL": url}, "5", HEAD, "text")
        assert "a token is not sent there" in str(caught.value)
        assert "secret-token" not in str(caught.value)


def test_what_the_service_says_is_told_without_the_token(server: Service) -> None:
    with pytest.raises(VdsgenError) as caught:
        comment_on_gitlab(
            {
                "CI_API_V4_URL": f"{server.url}/nothing",
                "CI_MERGE_REQUEST_PROJECT_ID": "12",
                "CI_MERGE_REQUEST_IID": "5",
                "VDSGEN_GITLAB_TOKEN": "secret-token",
            },
            "text",
        )
    assert "404" in str(caught.value) and "Not Found" in str(caught.value)
    assert "secret-token" not in str(caught.value)


def test_a_body_mentions_nobody_keeps_names_of_directories_and_has_an_end() -> None:
    body = comment_body(f"hello @team, {MARK} see article@four-24gb" + "x" * 100_000)
    assert "@team" not in body and "article@four-24gb" in body
    assert body.count(MARK) == 1 and body.startswith(MARK)
    assert len(body) < MOST_CHARACTERS + 200


def test_outside_of_ci_it_says_what_is_missing() -> None:
    with pytest.raises(VdsgenError, match="CI_MERGE_REQUEST_PROJECT_ID is not set"):
        comment_on_gitlab({}, "text")
