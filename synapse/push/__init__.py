"""Push rules and their evaluation."""
