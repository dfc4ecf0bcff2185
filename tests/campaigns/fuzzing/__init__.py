"""Inputs that nobody would write on purpose, the commands that read them, and what must hold afterwards."""
