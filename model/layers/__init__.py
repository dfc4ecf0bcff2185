"""Layers of the bundled family."""
