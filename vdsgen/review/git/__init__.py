"""What git holds: sides of a review, and the places where git calls `vdsgen diff`."""
