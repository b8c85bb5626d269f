"""Event values: building, hashing, signing, redacting, authorising. Pure."""
