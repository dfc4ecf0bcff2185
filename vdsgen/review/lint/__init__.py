"""Findings on any DeepSpeed JSON: what the engine refuses, drops, never reads, or had better not be told."""
