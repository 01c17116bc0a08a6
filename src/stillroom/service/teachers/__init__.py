"""Teachers, and the way out to them."""
