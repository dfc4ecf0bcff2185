"""Reading run directories: while they are written, after they have ended, and whoever wrote them."""
