from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsgen.catalog.hardware import resolve_gpu, resolve_link
from vdsgen.catalog.load import gpus
from vdsgen.catalog.names import MOST_SUGGESTIONS, similar_names
from vdsgen.errors import InputError
from vdsgen.spec.lab import Gpu, Link

PRODUCTS = {name: gpu.product for name, gpu in gpus().items()}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("RTX4090", ["rtx-4090"]),
        ("RTX 4090", ["rtx-4090"]),
        ("NVIDIA GeForce RTX 3090", ["rtx-3090"]),
        ("geforce-rtx-3090", ["rtx-3090"]),
        ("Tesla-T4", ["t4"]),
        ("nvidia l4", ["l4"]),
        ("A6000", ["rtx-a6000"]),
        ("H100-SXM", ["h100-80gb-sxm"]),
        ("rtx-3091", ["rtx-3090"]),
        ("A100-80G", ["a100-80gb-pcie", "a100-80gb-sxm"]),
        ("h100", ["h100-80gb-pcie", "h100-80gb-sxm", "h100-94gb-nvl"]),
    ],
)
def test_what_people_call_a_gpu_leads_to_its_name(written: str, meant: list[str]) -> None:
    assert similar_names(written, PRODUCTS) == meant
    with pytest.raises(InputError) as raised:
        resolve_gpu(written)
    assert all(name in str(raised.value) for name in meant)


@pytest.mark.parametrize("written", ["", "?!", "{{7*7}}", "x" * 10_000, "\x1b[31m"])
def test_names_that_resemble_nothing_get_no_suggestion(written: str) -> None:
    assert similar_names(written, PRODUCTS) == []


@given(st.text(max_size=40))
def test_suggestions_are_few_known_names(written: str) -> None:
    found = similar_names(written, PRODUCTS)
    assert len(found) <= MOST_SUGGESTIONS
    assert set(found) <= set(PRODUCTS)


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_every_product_name_leads_to_its_entry(name: str) -> None:
    assert similar_names(PRODUCTS[name], PRODUCTS)[0] == name


def test_links_have_suggestions_too() -> None:
    for written, meant in {
        "10GbE": "ethernet-10g",
        "PCIe 4.0 x16": "pcie-4.0-x16",
        "HDR": "infiniband-hdr",
    }.items():
        with pytest.raises(InputError, match=meant):
            resolve_link(written)


def test_names_become_figures_and_figures_stay() -> None:
    assert resolve_gpu("rtx-3090").fp16_tflops == 71
    assert resolve_link("pcie-4.0-x16") == Link(bandwidth_gb_per_second=24, latency_microseconds=5.7)
    own = Gpu(fp32_tflops=1, memory_bandwidth_gb_per_second=1)
    assert resolve_gpu(own) is own
