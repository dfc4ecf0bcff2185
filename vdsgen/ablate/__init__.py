"""Runs a set of plans for a few steps each, ranks them by what was measured, and learns from it."""
