"""Students at work."""
