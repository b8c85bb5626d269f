"""The client-server API held to its description as a whole: every operation answers, and withstands what is wrong."""
