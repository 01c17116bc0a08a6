"""What people bring, and may take away."""
