"""What a report tells of a plan: one file a section."""
