"""A scorecard and its details -> one self-contained HTML page, a diagnosis in words, and a model card.

Everything here reads plain dicts (`scorecard.json`, and the details that evaluation/details.py writes) and gives text. It
knows no run folder, no recipe and no model. numbers.py prints figures with their units, words.py says what each model is,
verdict.py is the one sentence, diagnosis.py the rules, svg.py plots.py pictures.py the charts, sections.py evidence.py and
further_tables.py what each part shows, page.py the page, card.py the README beside the weights, notebook.py a bare table.
What language models need is in language_page.py and its neighbours of that name.
"""
