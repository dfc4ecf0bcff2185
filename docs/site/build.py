"""Builds the site: `python -m docs.site.build [--out build/docs]`. Offline; a warning is an error."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from docs.site.stage import ROOT, staged


def write_sources(out: Path, root: Path = ROOT) -> None:
    """What Sphinx reads, in `out`; files that are the same stay untouched, others that are there go."""
    texts = staged(root)
    pictures = {f"images/{path.name}": path for path in (root / "docs/images").iterdir()}
    for old in [path for path in out.rglob("*") if path.is_file()]:
        if old.relative_to(out).as_posix() not in texts.keys() | pictures.keys():
            old.unlink()
    for name, text in texts.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for name, picture in pictures.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != picture.read_bytes():
            shutil.copyfile(picture, path)


def build(out: Path, root: Path = ROOT) -> int:
    """Sphinx's exit code; the site is in `out`, its sources and Sphinx's own files beside it."""
    sources = out.with_name(f"{out.name}-sources")
    write_sources(sources, root)
    return run_sphinx(sources, out)


def run_sphinx(sources: Path, out: Path) -> int:
    """Sphinx's exit code: not 0 where anything was worth a warning, such as a link that leads nowhere."""
    from sphinx.cmd.build import main

    kept = out.with_name(f"{out.name}-doctrees")
    arguments = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(ROOT / "docs"), "-d", str(kept)]
    return int(main([*arguments, str(sources), str(out)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build/docs")
    given = parser.parse_args()
    status = build(given.out)
    if status == 0:
        print(f"{given.out / 'index.html'}")
    sys.exit(status)
