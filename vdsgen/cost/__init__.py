"""What a configuration costs: pure functions, one physical thing a file."""
