"""Where a student's first weights come from."""
