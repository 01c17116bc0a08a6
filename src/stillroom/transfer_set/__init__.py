"""What the teacher answered: asked once, kept by content, read back against the right row or not at all."""
