"""The models whose layers are traced, as docs/profiles.md lists them: `python -m vdsgen.catalog.markdown`."""

from __future__ import annotations

from vdsgen.catalog.load import models, pretrained
from vdsgen.catalog.profiles import catalog_profile, profile_for


def models_table() -> str:
    """Each model, what it is published to hold, and what its traced layers hold."""
    lines = [
        "| model | class | layers | parameters traced | parameters published |",
        "|---|---|---|---|---|",
    ]
    for name, model in models().items():
        profile = profile_for(model.sizes)
        assert profile is not None, f"{name} is committed with its profile"
        lines.append(f"| {name} | bundled | {len(profile.layers)} | {profile.parameters:,} | |")
    for name, entry in pretrained().items():
        profile = catalog_profile(name)
        exact = entry.published_parameters
        published = entry.parameters_source if exact is None else f"{exact:,} ({entry.parameters_source})"
        traced = f"{len(profile.layers)} | {profile.parameters:,}"
        lines.append(f"| {name} | `{entry.class_name}` | {traced} | {published} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(models_table(), end="")
