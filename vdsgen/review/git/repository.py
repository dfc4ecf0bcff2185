"""A repository's revisions and files, read from its objects: nothing is checked out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vdsgen.errors import VdsgenError
from vdsgen.review.git.command import git_output, run_git, words_of

MOST_FILE_BYTES = 8 * 1024**2
"""Larger files are not read: no rendered one comes near."""
MOST_BYTES = 512 * 1024**2
"""Of one side."""
REGULAR = (b"100644", b"100755")
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file's content, by its name among git's objects."""

    oid: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Repository:
    """Where git commands run."""

    root: Path
    """Of the working tree; of a bare repository, its own folder."""
    is_bare: bool = False

    @staticmethod
    def around(folder: Path) -> Repository | None:
        """The one that a folder lies in; None where there is none."""
        here = folder if folder.is_dir() else folder.parent
        while not here.is_dir() and here != here.parent:
            here = here.parent
        found = run_git(here, ["rev-parse", "--show-toplevel"])
        if found.returncode == 0:
            return Repository(Path(found.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")))
        bare = run_git(here, ["rev-parse", "--is-bare-repository"])
        if bare.returncode == 0 and bare.stdout.strip() == b"true":
            return Repository(here, is_bare=True)
        if b"dubious ownership" in found.stderr:
            raise VdsgenError(
                f"git does not trust the repository around {here}: {words_of(found.stderr)}",
                remedy=f"git config --global --add safe.directory {here}",
            )
        return None

    def tree_of(self, revision: str) -> str | None:
        """The object of a revision's tree; None where there is no such revision."""
        return self._object(revision, "tree")

    def commit_of(self, revision: str) -> str | None:
        return self._object(revision, "commit")

    def _object(self, revision: str, kind: str) -> str | None:
        if not revision or revision.startswith("-") or any(ord(c) < 32 for c in revision):
            return None
        found = run_git(
            self.root, ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{{kind}}}"]
        )
        text = found.stdout.decode("ascii", "replace").strip()
        return text if found.returncode == 0 and _OID.fullmatch(text) else None

    def merge_base(self, one: str, other: str) -> str:
        """The commit that two revisions come from. Raises VdsgenError where they have none in common."""
        commits = [self.commit_of(one), self.commit_of(other)]
        for name, commit in zip((one, other), commits, strict=True):
            if commit is None:
                raise no_revision(name)
        found = run_git(self.root, ["merge-base", *(commit for commit in commits if commit)])
        base = found.stdout.decode("ascii", "replace").strip()
        if found.returncode != 0 or not _OID.fullmatch(base):
            remedy = "name revisions that share history; in CI, fetch all of it (fetch-depth: 0)"
            raise VdsgenError(f"{one} and {other} have no commit in common", remedy=remedy)
        return base

    def files(self, tree: str, below: PurePosixPath) -> dict[str, Blob]:
        """Path from the root -> content of every regular file at or below a path."""
        arguments = ["ls-tree", "-r", "-l", "-z", "--full-tree", tree]
        name = below.as_posix()
        listed = git_output(self.root, arguments if name == "." else [*arguments, "--", name])
        files: dict[str, Blob] = {}
        for line in listed.split(b"\0")[:-1]:
            head, _, path = line.partition(b"\t")
            mode, kind, oid, size = head.split()
            if mode in REGULAR and kind == b"blob":
                files[path.decode("utf-8", "surrogateescape")] = Blob(oid.decode(), int(size))
        return files

    def read_index(self, folder: str) -> dict[str, bytes]:
        """File name -> content of the files right in a folder, as they are staged."""
        listed = git_output(
            self.root, ["ls-files", "-z", "--stage", "--full-name", "--", f"{folder}/" if folder else "."]
        )
        blobs: dict[str, Blob] = {}
        for line in listed.split(b"\0")[:-1]:
            head, _, path = line.partition(b"\t")
            mode, oid, stage = head.split()
            name = path.decode("utf-8", "surrogateescape")
            if mode in REGULAR and stage == b"0" and name.rpartition("/")[0] == folder:
                blobs[name.rpartition("/")[2]] = Blob(oid.decode(), 0)
        contents = self.read(blobs.values())
        return {name: contents[blob.oid] for name, blob in blobs.items() if blob.oid in contents}

    def read(self, blobs: Iterable[Blob]) -> dict[str, bytes]:
        """Content by object name, through one process. Files that are too large are left out."""
        sizes = {blob.oid: blob.size_bytes for blob in blobs if blob.size_bytes <= MOST_FILE_BYTES}
        if sum(sizes.values()) > MOST_BYTES:
            raise VdsgenError(f"{sum(sizes.values()):,} bytes are to be compared, which is too much")
        if not sizes:
            return {}
        answer = git_output(self.root, ["cat-file", "--batch"], content="\n".join([*sizes, ""]).encode())
        return dict(_contents(answer))

    def paths_here(self, below: PurePosixPath) -> list[str]:
        """Files of the working tree below a folder, tracked or not, without those that git ignores."""
        name = below.as_posix()
        arguments = ["ls-files", "-z", "--full-name", "--cached", "--others", "--exclude-standard"]
        listed = git_output(self.root, arguments if name == "." else [*arguments, "--", name])
        return list(
            dict.fromkeys(part.decode("utf-8", "surrogateescape") for part in listed.split(b"\0")[:-1])
        )

    def commits_touching(self, path: PurePosixPath, most: int) -> list[str]:
        """The newest commits of all branches that changed a file or folder."""
        listed = git_output(
            self.root,
            ["rev-list", "--all", f"--max-count={most}", "--", path.as_posix()],
        )
        return listed.decode("ascii", "replace").split()

    def relative(self, path: Path) -> PurePosixPath:
        """A path of this machine as git names it. Raises VdsgenError where it lies outside."""
        try:
            return PurePosixPath(path.resolve().relative_to(self.root.resolve()).as_posix())
        except ValueError:
            raise VdsgenError(f"{path} is outside the repository {self.root}") from None


def no_revision(name: str) -> VdsgenError:
    return VdsgenError(
        f"{name!r} is no revision that git knows here",
        remedy="name a branch, tag or commit; in CI, fetch it first (fetch-depth: 0)",
    )


def _contents(answer: bytes) -> Iterator[tuple[str, bytes]]:
    """`git cat-file --batch`: `OID TYPE SIZE\\nCONTENT\\n`, or `OID missing\\n` (git-cat-file(1))."""
    at = 0
    while at < len(answer):
        end = answer.index(b"\n", at)
        head = answer[at:end].split(b" ")
        at = end + 1
        if len(head) != 3:
            continue
        size = int(head[2])
        yield head[0].decode(), answer[at : at + size]
        at += size + 1


def blob_oid(content: bytes, *, digits: int = 40) -> str:
    """What git would call this content; `digits` are 64 in repositories of SHA-256."""
    text = b"blob %d\0" % len(content) + content
    return (
        hashlib.sha256(text).hexdigest()
        if digits == 64
        else hashlib.sha1(text, usedforsecurity=False).hexdigest()
    )
