"""Data that is built in: GPUs, links, models and their layer profiles, each figure with its source."""
