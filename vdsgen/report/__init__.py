"""Pictures and pages from plans and runs."""
