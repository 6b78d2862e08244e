"""Copies a SQLite database that is in use, as `sqlite3 FILE ".backup COPY"` does.

    backup.py FILE COPY

It must never change the original.
"""

import sqlite3
import sys

source = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
copy = sqlite3.connect(sys.argv[2])
source.backup(copy)
copy.close()
source.close()
