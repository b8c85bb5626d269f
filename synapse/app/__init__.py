"""One small module per process type, and the start-up that they share."""
