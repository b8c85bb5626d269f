"""Small helpers without knowledge of Matrix."""
