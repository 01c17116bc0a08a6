"""Batches in, a trained network out. One loop; it sees batches and objectives, and knows no teacher."""
