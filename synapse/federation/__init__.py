"""Other servers: where they are, and what is asked of them."""
