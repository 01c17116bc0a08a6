"""Distillation as a service: an HTTP interface shaped like OpenAI's, jobs that survive, and web pages. Needs the extra `serve`.

A request goes through `wall` (sizes, hosts, rates), is given a project by `access`, and is answered by the room of its noun:

    files.py  jobs.py  events.py  models.py  chat.py  completions.py  teachers.py  native.py  keys.py     under /v1 and /api
    pages/                                                                              what a browser is shown
    database.py  tables.py  migrations/                                                 rows: SQLite, one file
    worker.py  executor.py  trainer.py                                                  a job's process, and who watches it

It stands on flow.py and knows nothing of its own about distilling. No torch is imported before a student is served.
"""
