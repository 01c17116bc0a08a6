"""A teacher on this machine that is asked as one over the network: for trying recipes offline, for tests and benchmarks.

It speaks the OpenAI-compatible chat interface, has a price, limits and faults, and keeps a bill of what it was paid for.
"""
