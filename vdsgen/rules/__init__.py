"""What DeepSpeed allows: one Rule a constraint."""
