"""From a Plan to files."""
