"""Data that is built in: GPUs, links, models and their layer profiles, each figure with its source."""

from vdsgen.catalog.hardware import (
    lab_problems,
    pool_problems,
    resolve_gpu,
    resolve_host_link,
    resolve_link,
)
from vdsgen.catalog.inputs import open_experiment, open_inputs, open_lab
from vdsgen.catalog.load import gpus, links, models
from vdsgen.catalog.profiles import profile_for, store_profile
from vdsgen.catalog.resolve import resolve_experiment, resolve_model

__all__ = [
    "gpus",
    "lab_problems",
    "links",
    "models",
    "open_experiment",
    "open_inputs",
    "open_lab",
    "pool_problems",
    "profile_for",
    "resolve_experiment",
    "resolve_gpu",
    "resolve_host_link",
    "resolve_link",
    "resolve_model",
    "store_profile",
]
