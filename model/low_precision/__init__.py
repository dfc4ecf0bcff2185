"""Linear layers that multiply in 8 bits."""
