"""Names that drivers and clusters write, and the catalogue's entry that each means."""

from __future__ import annotations

import pytest

from vdsgen.catalog.load import gpus
from vdsgen.scan.gpu_names import meant_by, named_by_driver
from vdsgen.units import GIB

MIB = 2**20


@pytest.mark.parametrize(
    ("name", "memory_mib", "entry"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80gb-sxm"),
        ("A100-SXM4-40GB", 40536, "a100-40gb-sxm"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-80gb-pcie"),
        ("NVIDIA A100-PCIE-40GB", 40960, "a100-40gb-pcie"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100-80gb-sxm"),
        ("NVIDIA H100 PCIe", 81559, "h100-80gb-pcie"),
        ("NVIDIA H100 NVL", 95830, "h100-94gb-nvl"),
        ("NVIDIA H200", 143771, "h200-141gb-sxm"),
        ("NVIDIA H200 NVL", 143771, "h200-141gb-nvl"),
        ("NVIDIA B200", 183359, "b200-180gb-sxm"),
        ("Tesla V100-SXM2-16GB", 16160, "v100-16gb-sxm2"),
        ("Tesla V100-PCIE-32GB", 32510, "v100-32gb-pcie"),
        ("Tesla T4", 15109, "t4"),
        ("NVIDIA A10G", 23028, "a10g"),
        ("NVIDIA A16", 15356, "a16"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA RTX A4000", 16376, "rtx-a4000"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "rtx-6000-ada"),
        ("NVIDIA GeForce RTX 3090", 24268, "rtx-3090"),
        ("GeForce RTX 2080 Ti", 11019, "rtx-2080-ti"),
        ("NVIDIA GeForce RTX 3060", 12288, "rtx-3060-12gb"),
        # Not these: another memory, another chip, another cooling.
        ("NVIDIA GeForce RTX 3060", 8192, None),
        ("NVIDIA GeForce RTX 3080", 12288, None),
        ("NVIDIA GeForce RTX 4090 D", 24564, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376, None),
        ("NVIDIA A100-SXM-64GB", 65536, None),
        ("Quadro RTX 6000", 24576, None),
        ("NVIDIA GH200 480GB", 97871, None),
    ],
)
def test_a_drivers_name_and_memory_mean_one_entry(name: str, memory_mib: int, entry: str | None) -> None:
    assert named_by_driver(name, memory_mib * MIB) == entry


def test_every_entrys_own_product_name_means_it() -> None:
    for entry, gpu in gpus().items():
        if gpu.memory_gib is not None and gpu.vendor == "nvidia":
            assert named_by_driver(gpu.product, round(gpu.memory_gib * GIB)) == entry


@pytest.mark.parametrize(
    ("gres", "features", "entries"),
    [
        ("rtx_3090", (), ("rtx-3090",)),
        ("rtx3090", (), ("rtx-3090",)),
        ("3090", (), ("rtx-3090",)),
        ("a6000", (), ("rtx-a6000",)),
        ("nvidia_a100_80gb_pcie", (), ("a100-80gb-pcie",)),
        ("nvidia_h100_80gb_hbm3", (), ("h100-80gb-sxm",)),
        ("a100", (), ("a100-40gb-pcie", "a100-40gb-sxm", "a100-80gb-pcie", "a100-80gb-sxm")),
        ("a100", ("a100_80gb", "x86"), ("a100-80gb-pcie", "a100-80gb-sxm")),
        ("a100", ("80gb", "sxm4"), ("a100-80gb-sxm",)),
        ("v100", (), ("v100-16gb-pcie", "v100-16gb-sxm2", "v100-32gb-pcie", "v100-32gb-sxm2")),
        ("a100_1g.5gb", (), ()),
        ("tesla-p100", (), ()),
    ],
)
def test_what_a_cluster_can_mean_by_a_type_of_gpu(
    gres: str, features: tuple[str, ...], entries: tuple[str, ...]
) -> None:
    assert meant_by(gres, frozenset(features)) == entries
