"""What is common to all Matrix APIs: identifiers, errors, room versions, filters, routes. Pure."""
