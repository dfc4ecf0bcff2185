"""From candidates to a Plan, with reasons."""
