"""Pages of the built-in GPUs, links and models: every figure with its source."""

from __future__ import annotations

from docs.site.markdown import cell, code, table
from vdsgen.catalog.load import gpus, links, models, pretrained
from vdsgen.catalog.profiles import catalog_profile, profile_for

GPUS = """\
# GPUs

Names for `gpu:` of a pool ([Any lab](../labs.md)), and the figures that plans are made with. Rates are of dense matrix
products, in TFLOPS. `vdsgen catalog gpus NAME` shows one. Figures of your own may stand in the lab file in place of a
name.

"""
LINKS = """\
# Links

Names for `intra_node:`, `inter_node:` and `host_link:` of a pool. One GPU, one direction, as communication libraries
sustain it. `vdsgen catalog links NAME` shows one.

"""
MODELS = """\
# Models

Names for `model:` of an experiment. Parameters are counted in the layers that were traced ([layer profiles](../profiles.md)).

## The bundled family

Spatio-temporal transformers ([the model](../model.md)).

"""
DIFFUSERS = """
## Models of diffusers

Trained as they are ([models of diffusers](../models.md)), each by its family's recipe ([recipe](../recipes.md)).

"""


def catalogue_pages() -> dict[str, str]:
    """By path below the site's sources."""
    return {
        "reference/gpus.md": GPUS + _gpus(),
        "reference/links.md": LINKS + _links(),
        "reference/models.md": MODELS + _bundled() + DIFFUSERS + _diffusers(),
    }


def _gpus() -> str:
    found = gpus()
    figures = [
        (
            code(name),
            cell(gpu.product),
            *map(
                _number, (gpu.memory_gib, gpu.fp32_tflops, gpu.fp16_tflops, gpu.bf16_tflops, gpu.fp8_tflops)
            ),
            *map(_number, (gpu.int8_tflops, gpu.memory_bandwidth_gb_per_second)),
            ", ".join(map(code, gpu.links)),
        )
        for name, gpu in found.items()
    ]
    head = ["name", "product", "GiB", "fp32", "fp16", "bf16", "fp8", "int8", "GB/s", "links"]
    sources = [
        (code(name), cell(gpu.source), cell(gpu.memory_source), cell(gpu.note or ""))
        for name, gpu in found.items()
    ]
    return table(head, figures) + "\n## Sources\n\n" + table(["name", "rates", "memory", "note"], sources)


def _links() -> str:
    rows = [
        (
            code(name),
            link.kind,
            _number(link.bandwidth_gb_per_second),
            _number(link.line_rate_gb_per_second),
            _number(link.latency_microseconds),
            _number(link.joins),
            cell(" ".join(filter(None, (link.source, link.note)))),
        )
        for name, link in links().items()
    ]
    return table(["name", "kind", "GB/s", "line rate, GB/s", "latency, µs", "joins, GPUs", "source"], rows)


def _bundled() -> str:
    rows = []
    for name, model in models().items():
        profile, sizes = profile_for(model.sizes), model.sizes
        count = "" if profile is None else f"{profile.parameters:,}"
        widths = (sizes.hidden_size, sizes.depth, sizes.heads, sizes.mlp_hidden_size, sizes.in_channels)
        rows.append((code(name), count, *map(str, widths), sizes.condition, cell(model.summary)))
    return table(
        ["name", "parameters", "hidden", "blocks", "heads", "mlp", "channels", "condition", ""], rows
    )


def _diffusers() -> str:
    rows = []
    for name, model in pretrained().items():
        profile = catalog_profile(name)
        figures = (f"{profile.parameters:,}", str(len(profile.layers)), code(model.class_name))
        rows.append(
            (
                code(name),
                *figures,
                cell(model.summary),
                cell(model.config_source),
                cell(model.parameters_source),
            )
        )
    head = ["name", "parameters", "layers", "class", "", "sizes from", "published parameters"]
    return table(head, rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
