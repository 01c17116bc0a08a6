"""Distillation as a service: an HTTP interface shaped like OpenAI's, jobs that survive, and web pages. Needs the extra `serve`.

A request goes through `wall` (sizes, hosts, rates), is given a project by `access`, and is answered by the file of its noun:

    serving  settings  app  routes  wall  bodies  access  vault  faults  schemas  lists    the door, and what all answers share
    files  uploads  forms  jsonl  conversations  completions  lineage  retention  keys     what people bring, and may take away
    jobs  asked  creations  job_object  job_rows  events  streams                          a job as its client sees it
    sources  references  drafting  presets  validation  estimating                         from a request to a recipe
    worker  tending  leases  attempt  executor  processes  trainer  progress_told          a job's process, and who watches it
    finishing  report_page                                                                 what a finished run becomes
    models  chat  chat_body  answering  shelf  batching  speaking  usage                   students at work
    teachers  proxy  outward                                                               teachers, and the way out to them
    native                                                                                 what has no shape in OpenAI's interface
    database  tables  migrations/  ids  logs  metrics  health  heartbeat                   rows: SQLite, one file; how it is
    pages/                                                                                 what a browser is shown

It stands on flow.py and knows nothing of its own about distilling. No torch is imported before a student is served.
"""
