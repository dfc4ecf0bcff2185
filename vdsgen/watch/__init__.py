"""`vdsgen watch`: a run in a terminal, while it goes on and after it has ended."""
