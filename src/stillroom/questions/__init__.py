"""Where questions come from: data sets read and split, and views (augmentations) of their rows.

This floor reads files and arrays. It knows no teacher, no student and no objective.
"""
