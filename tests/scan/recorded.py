"""What tools printed on real machines, as others published it; and one table in their format."""

from __future__ import annotations

# github.com/NVIDIA/nccl/issues/1505: a DGX A100 40GB. Columns of network cards left out.
DGX_A100_TOPOLOGY = """\
        GPU0    GPU1    GPU2    GPU3    GPU4    GPU5    GPU6    GPU7    CPU Affinity    NUMA    GPU NUMA ID
GPU0     X      NV12    NV12    NV12    NV12    NV12    NV12    NV12    48-63,176-191   3               N/A
GPU1    NV12     X      NV12    NV12    NV12    NV12    NV12    NV12    48-63,176-191   3               N/A
GPU2    NV12    NV12     X      NV12    NV12    NV12    NV12    NV12    16-31,144-159   1               N/A
GPU3    NV12    NV12    NV12     X      NV12    NV12    NV12    NV12    16-31,144-159   1               N/A
GPU4    NV12    NV12    NV12    NV12     X      NV12    NV12    NV12    112-127,240-255 7       N/A
GPU5    NV12    NV12    NV12    NV12    NV12     X      NV12    NV12    112-127,240-255 7       N/A
GPU6    NV12    NV12    NV12    NV12    NV12    NV12     X      NV12    80-95,208-223   5               N/A
GPU7    NV12    NV12    NV12    NV12    NV12    NV12    NV12     X      80-95,208-223   5               N/A
"""

# OneFlow's benchmark test reports: a server of eight Tesla V100-SXM2-16GB, the hybrid cube mesh.
V100_TOPOLOGY = """\
        GPU0    GPU1    GPU2    GPU3    GPU4    GPU5    GPU6    GPU7    mlx5_0  CPU Affinity
GPU0     X      NV1     NV1     NV2     NV2     SYS     SYS     SYS     NODE    0-11,24-35
GPU1    NV1      X      NV2     NV1     SYS     NV2     SYS     SYS     NODE    0-11,24-35
GPU2    NV1     NV2      X      NV2     SYS     SYS     NV1     SYS     PIX     0-11,24-35
GPU3    NV2     NV1     NV2      X      SYS     SYS     SYS     NV1     PIX     0-11,24-35
GPU4    NV2     SYS     SYS     SYS      X      NV1     NV1     NV2     SYS     12-23,36-47
GPU5    SYS     NV2     SYS     SYS     NV1      X      NV2     NV1     SYS     12-23,36-47
GPU6    SYS     SYS     NV1     SYS     NV1     NV2      X      NV2     SYS     12-23,36-47
GPU7    SYS     SYS     SYS     NV1     NV2     NV1     NV2      X      SYS     12-23,36-47
mlx5_0  NODE    NODE    PIX     PIX     SYS     SYS     SYS     SYS      X
"""

# A server of eight H100 PCIe in pairs by NVLink bridges, from the notes of a benchmark (driver 580.126.09).
H100_PCIE_TOPOLOGY = """\
        GPU0    GPU1    GPU2    GPU3    GPU4    GPU5    GPU6    GPU7    NUMA
GPU0     X      NODE    NODE    SYS     SYS     NV12    SYS     SYS       0
GPU1    NODE     X      NV12    SYS     SYS     SYS     SYS     SYS       0
GPU2    NODE    NV12     X      SYS     SYS     SYS     SYS     SYS       0
GPU3    SYS     SYS     SYS      X      NV12    NODE    NODE    NODE      1
GPU4    SYS     SYS     SYS     NV12     X      NODE    NODE    NODE      1
GPU5    NV12    SYS     SYS     NODE    NODE     X      NODE    NODE      1
GPU6    SYS     SYS     SYS     NODE    NODE    NODE     X      NV12      1
GPU7    SYS     SYS     SYS     NODE    NODE    NODE    NV12     X        1
"""

# Of no machine, in nvidia-smi's format: four cards without NVLink, two at each processor.
PCIE_TOPOLOGY = """\
        GPU0    GPU1    GPU2    GPU3    CPU Affinity    NUMA    GPU NUMA ID
GPU0     X      NODE    SYS     SYS     0-9,20-29       0               N/A
GPU1    NODE     X      SYS     SYS     0-9,20-29       0               N/A
GPU2    SYS     SYS      X      NODE    10-19,30-39     1               N/A
GPU3    SYS     SYS     NODE     X      10-19,30-39     1               N/A
"""

# Partitions of CSC's Puhti and Mahti as published with CSC's SlurmLimits: limit, MB, S:C:T and GRES; nodes of
# the published partition lists. Availability, counts by state and features as sinfo writes them.
CSC_SINFO = """\
small|up|3-00:00:00|1|654|mixed|190000+|2:20:1|(null)|(null)|r01c[01-48]
gputest|up|15:00|1-2|2|idle|382000|2:20:1|gpu:v100:4(S:0-1),nvme:3600|(null)|r01g01,r02g01
gpu|up|3-00:00:00|1-20|70|mixed|382000|2:20:1|gpu:v100:4(S:0-1),nvme:3600|(null)|r01g[02-08],r02g[02-08]
gpu|up|3-00:00:00|1-20|8|drained|382000|2:20:1|gpu:v100:4(S:0-1),nvme:3600|(null)|r18g[01-08]
gpumedium|up|1-12:00:00|1-infinite|22|allocated|490000|4:32:2|gpu:a100:4,nvme:3500|(null)|g[1101-1122]
interactive|up|7-00:00:00|1|4|idle|382000|2:20:1|nvme:3600|(null)|r07c[49-52]
"""
