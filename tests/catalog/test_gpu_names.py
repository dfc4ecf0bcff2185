"""GPUs as drivers name them, and products of the catalogue."""

from __future__ import annotations

import pytest

from vdsgen.catalog.gpu_names import same_product
from vdsgen.catalog.load import gpus


@pytest.mark.parametrize(
    ("entry", "driver_name"),
    [
        ("a100-80gb-sxm", "NVIDIA A100-SXM4-80GB"),
        ("a100-80gb-pcie", "NVIDIA A100 80GB PCIe"),
        ("v100-16gb-sxm2", "Tesla V100-SXM2-16GB"),
        ("t4", "Tesla T4"),
        ("h100-80gb-sxm", "NVIDIA H100 80GB HBM3"),
        ("h100-80gb-pcie", "NVIDIA H100 PCIe"),
        ("h200-141gb-sxm", "NVIDIA H200"),
        ("b200-180gb-sxm", "NVIDIA B200"),
        ("l40s", "NVIDIA L40S"),
        ("rtx-6000-ada", "NVIDIA RTX 6000 Ada Generation"),
        ("rtx-3060-12gb", "NVIDIA GeForce RTX 3060"),
        ("rtx-4070-ti-super", "NVIDIA GeForce RTX 4070 Ti SUPER"),
        ("mi300x", "AMD Instinct MI300X"),
        ("mi250x", "AMD Instinct MI250X"),
        ("mi210", "AMD GPU"),
    ],
)
def test_drivers_names_are_known(entry: str, driver_name: str) -> None:
    assert same_product(gpus()[entry].product, driver_name)


@pytest.mark.parametrize(
    ("entry", "driver_name"),
    [
        ("a100-80gb-pcie", "NVIDIA A100-SXM4-80GB"),
        ("h100-80gb-pcie", "NVIDIA H100 80GB HBM3"),
        ("rtx-4080", "NVIDIA GeForce RTX 4080 SUPER"),
        ("l40", "NVIDIA L40S"),
        ("a10", "NVIDIA A10G"),
        ("rtx-3090", "NVIDIA GeForce RTX 3090 Ti"),
    ],
)
def test_near_products_are_told_apart(entry: str, driver_name: str) -> None:
    assert not same_product(gpus()[entry].product, driver_name)
