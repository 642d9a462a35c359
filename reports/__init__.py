"""Records on disk -> one offline HTML page, a Markdown summary and CSV files.

Reading order: load.py (JSONL to frames), tables.py (frames to tables), build.py (tables to files).
Nothing here imports yaie: the records are the interface, so any run can be reported anywhere.
"""
