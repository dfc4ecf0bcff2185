"""The catalogue's figures are of the right magnitude, agree with one another, and have sources."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vdsgen.catalog.entries import CatalogGpu, CatalogLink
from vdsgen.catalog.load import gpus, links, models
from vdsgen.spec.lab import Gpu, Link

BF16_ARCHITECTURES = {"ampere", "ada", "hopper", "blackwell", "cdna2", "cdna3"}
FP8_ARCHITECTURES = {"ada", "hopper", "blackwell", "cdna3"}
DEVICES = [pytest.param(gpu, id=name) for name, gpu in gpus().items() if name != "cpu"]
LINKS = [pytest.param(link, id=name) for name, link in links().items()]


def test_every_accelerator_that_labs_have_is_there() -> None:
    assert len(gpus()) >= 30
    needed = [
        "rtx-3090",
        "rtx-4090",
        "rtx-5090",
        "rtx-a4000",
        "rtx-a5000",
        "rtx-a6000",
        "rtx-6000-ada",
        "t4",
        "v100-16gb-pcie",
        "v100-32gb-sxm2",
        "a10",
        "a30",
        "a40",
        "a100-40gb-pcie",
        "a100-80gb-sxm",
        "l4",
        "l40s",
        "h100-80gb-pcie",
        "h100-80gb-sxm",
        "h200-141gb-sxm",
        "b200-180gb-sxm",
        "mi210",
        "mi250x",
        "mi300x",
        "cpu",
    ]
    assert set(needed) <= set(gpus())
    for word in [
        "pcie-3.0",
        "pcie-4.0",
        "pcie-5.0",
        "nvlink-2",
        "nvlink-5",
        "ethernet-10g",
        "ethernet-100g",
        "hdr",
        "ndr",
    ]:
        assert any(word in name for name in links())


@pytest.mark.parametrize("gpu", DEVICES)
def test_figures_are_plausible_and_sourced(gpu: CatalogGpu) -> None:
    assert gpu.memory_gib is not None
    assert 8 <= gpu.memory_gib <= 300
    assert 2 <= gpu.fp32_tflops <= 200
    assert 100 <= gpu.memory_bandwidth_gb_per_second <= 10_000
    assert len(gpu.source) > 20
    assert gpu.memory_source
    assert gpu.links


@pytest.mark.parametrize("gpu", DEVICES)
def test_half_precision_agrees_with_the_architecture(gpu: CatalogGpu) -> None:
    assert (gpu.bf16_tflops is not None) == (gpu.architecture in BF16_ARCHITECTURES)
    assert (gpu.fp8_tflops is not None) == (gpu.architecture in FP8_ARCHITECTURES)
    assert gpu.fp16_tflops is not None
    assert 1.9 <= gpu.fp16_tflops / gpu.fp32_tflops <= 33
    if gpu.bf16_tflops is not None:
        assert gpu.bf16_tflops == gpu.fp16_tflops
    if gpu.fp8_tflops is not None:
        assert gpu.fp8_tflops / gpu.fp16_tflops == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [("rtx-3090", 71), ("rtx-4090", 165.2), ("a100-80gb-sxm", 312), ("h100-80gb-sxm", 989.5), ("l4", 121)],
)
def test_rates_are_dense_with_fp32_accumulation(name: str, tflops: float) -> None:
    assert gpus()[name].fp16_tflops == tflops


@pytest.mark.parametrize("name", ["t4", "a10", "a40", "l4", "l40s"])
def test_memory_is_what_ecc_leaves(name: str) -> None:
    memory = gpus()[name].memory_gib
    assert memory is not None
    assert memory in (14.99, 15.0, 22.48, 22.49, 44.98)


@pytest.mark.parametrize("gpu", DEVICES)
def test_links_of_gpus_are_in_the_catalogue_with_one_pcie(gpu: CatalogGpu) -> None:
    kinds = [links()[name].kind for name in gpu.links]
    assert kinds.count("pcie") == 1
    assert set(kinds) <= {"pcie", "xgmi" if gpu.vendor == "amd" else "nvlink"}


@pytest.mark.parametrize("link", LINKS)
def test_links_are_plausible_and_sourced(link: CatalogLink) -> None:
    assert 0.05 <= link.bandwidth_gb_per_second <= 1000
    assert 1 <= link.latency_microseconds <= 500
    assert len(link.source) > 20
    if link.line_rate_gb_per_second is not None:
        assert 0.6 <= link.bandwidth_gb_per_second / link.line_rate_gb_per_second < 1


def test_newer_links_are_faster() -> None:
    for family in (
        [f"pcie-{generation}.0-x16" for generation in (3, 4, 5)],
        [f"nvlink-{generation}" for generation in (2, 3, 4, 5)],
        [f"infiniband-{rate}" for rate in ("edr", "hdr", "ndr")],
        [f"ethernet-{rate}g" for rate in (1, 10, 25, 100)],
    ):
        bandwidths = [links()[name].bandwidth_gb_per_second for name in family]
        assert bandwidths == sorted(set(bandwidths))


def test_the_processor_shares_its_nodes_memory_and_says_who_measured_it() -> None:
    cpu = gpus()["cpu"]
    assert cpu.memory_gib is None
    assert cpu.fp16_tflops is None
    assert cpu.bf16_tflops is not None
    assert cpu.bf16_tflops < cpu.fp32_tflops
    assert "Measured" in cpu.source
    assert cpu.links == ("shared-memory",)


def test_figures_come_without_names_and_sources() -> None:
    for gpu in gpus().values():
        assert type(gpu.figures) is Gpu
    for link in links().values():
        assert type(link.figures) is Link


def test_models_carry_their_names_and_known_sizes() -> None:
    assert {name: model.sizes.name for name, model in models().items()} == {name: name for name in models()}
    assert {"vdt-demo", "vdt-1.2b", "vdt-1.5b", "vdt-2.1b"} <= set(models())
    assert models()["vdt-1.5b"].sizes.depth == 48


def test_the_catalogue_is_read_when_asked_for_and_needs_no_torch() -> None:
    code = (
        "import sys, vdsgen.catalog, vdsgen.catalog.load as load;"
        "assert load.gpus.cache_info().currsize == 0;"
        "vdsgen.catalog.gpus();"
        "assert not {'torch', 'deepspeed', 'yaml'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
