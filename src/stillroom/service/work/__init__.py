"""A job's process, and who watches it."""
