"""Faults injected by the hundred, each campaign by its own command; docs/reliability.md tells the outcome.

A campaign is a module with `main`, which runs it and writes its figures, and `section`, which makes a part of
the page out of them.
"""
