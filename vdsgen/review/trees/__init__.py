"""Trees of rendered directories: what they come from, whether they are fresh, and rendering them anew."""
