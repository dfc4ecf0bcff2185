"""Builds the chart library that reports carry: what entry.mjs names of Apache ECharts, in one minified file.

python -m vdsgen.report.build_charts    (needs npm and the network; package-lock.json pins every byte)

The same versions give the same bytes. What was built, and from what, is recorded in vendor/echarts.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from vdsgen.files import write_atomically

VENDOR = Path(__file__).parent / "vendor"
INPUTS = ("entry.mjs", "package.json", "package-lock.json")
LICENSES = {"LICENSE-echarts.txt": "echarts/LICENSE", "LICENSE-zrender.txt": "zrender/LICENSE"}
"""Apache-2.0 with what it bundles (d3's BSD-3-Clause), and BSD-3-Clause."""


def build() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for name in INPUTS:
            shutil.copy(VENDOR / name, place / name)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], place)
        modules = place / "node_modules"
        _run(
            [
                str(modules / ".bin" / "esbuild"),
                "entry.mjs",
                "--bundle",
                "--minify",
                "--charset=ascii",
                "--format=iife",
                "--global-name=echarts",
                "--legal-comments=eof",
                "--outfile=echarts.js",
            ],
            place,
        )
        script = (place / "echarts.js").read_bytes()
        texts = {name: (modules / source).read_bytes() for name, source in LICENSES.items()}
        locked = json.loads((place / "package-lock.json").read_bytes())["packages"]
    write_atomically(VENDOR / "echarts.js", script)
    for name, text in texts.items():
        write_atomically(VENDOR / name, text)
    record = {
        "name": "Apache ECharts",
        "homepage": "https://echarts.apache.org",
        "license": "Apache-2.0",
        "sha256": hashlib.sha256(script).hexdigest(),
        "entry_sha256": hashlib.sha256((VENDOR / "entry.mjs").read_bytes()).hexdigest(),
        "packages": {
            name.removeprefix("node_modules/"): {
                "version": package["version"],
                "license": package["license"],
                "integrity": package["integrity"],
            }
            for name, package in sorted(locked.items())
            if name in {f"node_modules/{one}" for one in ("echarts", "zrender", "tslib", "esbuild")}
        },
    }
    write_atomically(VENDOR / "echarts.json", (json.dumps(record, indent=2) + "\n").encode())


def _run(command: list[str], place: Path) -> None:
    subprocess.run(command, cwd=place, check=True)  # noqa: S603


if __name__ == "__main__":
    build()
