"""Benchmarks: the figures in docs/results, each from one command. Not part of the installed package."""
