"""What others measured on GPUs, expressed in this planner's terms and predicted with its cost functions."""
