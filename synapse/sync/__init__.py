"""The reading side: sync responses, one provider per section."""
