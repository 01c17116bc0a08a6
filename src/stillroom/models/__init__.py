"""Architectures, and the folder a trained classifier lives in."""
