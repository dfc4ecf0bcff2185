"""Runs every stage of a rendered plan on tensors without memory, and compares what it held with the plan."""
