"""Distillation as a service: an HTTP interface shaped like OpenAI's, jobs that survive, and web pages. Needs the extra `serve`.

Its map stands in app.py. It stands on flow.py and knows nothing of its own about distilling. No torch is imported before a
student is served.
"""
