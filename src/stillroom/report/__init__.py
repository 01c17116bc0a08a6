"""A scorecard and its details -> one self-contained HTML page, a diagnosis in words, and a model card.

Everything here reads plain dicts (`scorecard.json`, and what `details` says) and writes text. It knows no run folder,
no recipe and no model.

    numbers.py    reads a scorecard's numbers and prints them with their units
    words.py      what each model is, in words; the glossary
    verdict.py    the one sentence, the money
    diagnosis.py  rules: is there something wrong with this run, and what would mend it
    svg.py        elements, scales and marks
    plots.py      charts           pictures.py   matrices, soft-target bars, images
    sections.py   scorecard -> what each part of the page shows
    page.py       render() and render_panels(): the parts into page.html
    card.py       the README beside the student's weights
"""
