"""Predictions, made once, become figures with intervals: quality, fidelity to the teacher, calibration, speed, cost.

scores.py is the entrance for all that is said of test rows; metrics.py holds the definitions, intervals.py the
bootstrap, dark_knowledge.py what soft targets know beyond the answer, speed.py and cost.py what an answer takes.
"""
