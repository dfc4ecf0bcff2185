"""Explanations against brute force, and what they owe their readers."""
