"""Readers of rendered files: diff, check, lint."""
