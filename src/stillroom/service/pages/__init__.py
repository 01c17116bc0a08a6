"""The web pages: rendered here, whole without JavaScript, with nothing inline. Their state is in the rows alone.

`routes.py` has them all; `rendering.py` makes a page of a template and an error; `tokens.py` lets only our own forms in.
static/htmx.min.js is htmx 2.0.11, unchanged, under the licence beside it; live.js, draw.js and ask.js are ours.
"""
