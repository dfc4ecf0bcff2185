"""Sections of a report about runs: what they measured, beside what was planned."""
