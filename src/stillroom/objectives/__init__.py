"""What a student is trained towards. An objective gives a sum and a count; only the loop divides."""
