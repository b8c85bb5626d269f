"""Real clients that tests drive."""
