"""What people write (lab, experiment) and what the planner answers (plan), as Pydantic models."""
