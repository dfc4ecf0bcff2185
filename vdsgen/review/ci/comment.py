"""One comment under a pull or merge request: found again by its mark, and written anew."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vdsgen.errors import VdsgenError

MARK = "<!-- vdsgen review -->"
MOST_CHARACTERS = 65_000
"""GitHub takes 65,536."""
MOST_PAGES = 20
A_PAGE = 100
SECONDS = 30.0
MOST_ANSWER_BYTES = 16 * 1024**2
GITHUB_BOT = "github-actions[bot]"
"""Who comments with the token of a workflow."""

Done = Literal["written", "updated", "unchanged"]


def comment_body(text: str) -> str:
    """What is sent: within the service's limit, with the mark first, and mentioning nobody."""
    body = text.replace(MARK, "")
    body = re.sub(r"(?<![A-Za-z0-9._-])@(?=[A-Za-z0-9])", "@\N{ZERO WIDTH NON-JOINER}", body)
    if len(body) > MOST_CHARACTERS:
        body = f"{body[:MOST_CHARACTERS]}\n\n(cut: the whole review is the job's artifact)\n"
    return f"{MARK}\n{body.lstrip()}"


def comment_on_github(environment: Mapping[str, str], number: str, head: str, text: str) -> Done:
    """Writes or updates the comment. Raises VdsgenError where the pull request is not at the commit `head`,
    or the service refuses."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", number):
        raise VdsgenError(f"{number[:20]!r} is no number of a pull request")
    repository = _needed(environment, "GITHUB_REPOSITORY")
    if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", repository):
        raise VdsgenError(f"GITHUB_REPOSITORY is {repository!r}, no OWNER/NAME")
    api = _Api(
        environment.get("GITHUB_API_URL") or "https://api.github.com",
        {
            "Authorization": f"Bearer {_needed(environment, 'GITHUB_TOKEN')}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    found = api.ask("GET", f"/repos/{repository}/pulls/{number}")
    if found.get("head", {}).get("sha") != head:
        raise VdsgenError(
            f"pull request {number} is not at {head[:10]}",
            remedy="the review of its newest commit comments; this one is out of date",
        )
    own = (
        (one["id"], one["body"])
        for one in api.pages(f"/repos/{repository}/issues/{number}/comments")
        if (one.get("user") or {}).get("login") == GITHUB_BOT
    )
    return _put(
        api,
        own,
        text,
        new=("POST", f"/repos/{repository}/issues/{number}/comments"),
        known=("PATCH", f"/repos/{repository}/issues/comments/"),
    )


def comment_on_gitlab(environment: Mapping[str, str], text: str) -> Done:
    """As `comment_on_github`, of the merge request that the pipeline is for."""
    project = _needed(environment, "CI_MERGE_REQUEST_PROJECT_ID")
    number = _needed(environment, "CI_MERGE_REQUEST_IID")
    if not (project.isascii() and project.isdigit() and number.isascii() and number.isdigit()):
        raise VdsgenError("CI_MERGE_REQUEST_PROJECT_ID and CI_MERGE_REQUEST_IID must be numbers")
    api = _Api(
        _needed(environment, "CI_API_V4_URL"),
        {"PRIVATE-TOKEN": _needed(environment, "VDSGEN_GITLAB_TOKEN")},
    )
    user = api.ask("GET", "/user").get("id")
    notes = f"/projects/{project}/merge_requests/{number}/notes"
    own = (
        (one["id"], one["body"])
        for one in api.pages(notes)
        if (one.get("author") or {}).get("id") == user and user is not None
    )
    return _put(api, own, text, new=("POST", notes), known=("PUT", f"{notes}/"))


def _put(
    api: _Api,
    own: Iterator[tuple[int, str]],
    text: str,
    *,
    new: tuple[str, str],
    known: tuple[str, str],
) -> Done:
    body = comment_body(text)
    for number, before in own:
        if not str(before).startswith(MARK):
            continue
        if before == body:
            return "unchanged"
        api.ask(known[0], f"{known[1]}{int(number)}", {"body": body})
        return "updated"
    api.ask(new[0], new[1], {"body": body})
    return "written"


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise VdsgenError(f"{name} is not set", remedy="this runs in CI; `vdsgen ci` renders the jobs")
    return value


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token is for the service that was named, and for no other."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Api:
    """A service's address, and what each request to it carries."""

    url: str
    headers: Mapping[str, str]

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        is_here = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and is_here)):
            raise VdsgenError(f"{self.url[:100]!r} is no https address: a token is not sent there")

    def ask(self, method: str, path: str, content: object = None) -> dict[str, Any]:
        """The object that it answers with. Raises VdsgenError with its status and words."""
        answer = self._answer(method, path, content)
        if not isinstance(answer, dict):
            raise VdsgenError(f"{method} {path}: no JSON object came back")
        return answer

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """The items of a list, a page after the other."""
        for page in range(1, MOST_PAGES + 1):
            items = self._answer("GET", f"{path}?per_page={A_PAGE}&page={page}")
            if not isinstance(items, list):
                raise VdsgenError(f"GET {path}: no JSON list came back")
            yield from (item for item in items if isinstance(item, dict))
            if len(items) < A_PAGE:
                return

    def _answer(self, method: str, path: str, content: object = None) -> object:
        data = None if content is None else json.dumps(content).encode()
        headers = {**self.headers, "Content-Type": "application/json", "User-Agent": "vdsgen"}
        request = urllib.request.Request(  # noqa: S310 - https, or this machine
            f"{self.url.rstrip('/')}{path}", data, headers, method=method
        )
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=SECONDS) as answer:
                return json.loads(answer.read(MOST_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                told = error.read(2000).decode("utf-8", "replace")
            words = " ".join("".join(c if c.isprintable() else " " for c in told).split())[:200]
            raise VdsgenError(
                f"{method} {path}: {error.code} {words}",
                remedy="see that the token may write comments (pull-requests: write, or scope api)"
                if error.code in (401, 403, 404)
                else None,
            ) from None
        except (OSError, ValueError) as error:
            raise VdsgenError(f"{method} {path}: {error}") from None
