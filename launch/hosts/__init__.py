"""What every host of a job is asked before it starts, and what the answers mean."""
