"""Traces a model's real layers into a ModelProfile; the only door from planning to torch."""
