"""Which state holds where: the resolution algorithms (pure) and the state of rooms and events."""
