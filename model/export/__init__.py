"""Checkpoints as folders of weights that other programs load, without a GPU and without the engine."""
