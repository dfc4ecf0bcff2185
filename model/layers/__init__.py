"""The layers of the bundled family; each file documents its shapes."""
