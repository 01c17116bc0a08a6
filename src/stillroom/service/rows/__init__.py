"""What the service keeps: SQLite, one file."""
