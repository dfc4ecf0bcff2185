"""Names of the files of a rendered directory, and of the templates they are made from."""

from __future__ import annotations

from collections.abc import Mapping

ALWAYS = (
    "ds_config.json.j2",
    "plan.json.j2",
    "train.yaml.j2",
    "hostfile.j2",
    "launch.sh.j2",
    "PLAN.md.j2",
)
"""One for each file that every plan has, whose name is the template's without `.j2`."""

OF_LAUNCHERS: Mapping[str, tuple[str, ...]] = {
    "slurm": ("train.sbatch.j2",),
    "kubernetes": ("pytorchjob.yaml.j2",),
}
"""A pool's launcher -> those that its plans have too."""

TEMPLATES = (*ALWAYS, *(name for names in OF_LAUNCHERS.values() for name in names))

FILES = tuple(name.removesuffix(".j2") for name in ALWAYS)
"""Names of every rendered directory's files."""
KNOWN_FILES = tuple(name.removesuffix(".j2") for name in TEMPLATES)
"""The same, and those that some launcher needs."""
