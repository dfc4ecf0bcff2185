"""From video files to training batches."""
