"""Starts a server in a terminal of its own, asks it to reload there, then closes the terminal.

    terminal.py BINARY ARGUMENT...

Prints how the server ended. It must never leave a server behind.
"""

import os
import pty
import signal
import sys


def read_until(master: int, words: bytes) -> None:
    seen = b""
    while words not in seen:
        chunk = os.read(master, 4096)
        if not chunk:
            raise SystemExit(f"it ended before it said {words!r}: {seen!r}")
        seen += chunk


def main() -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execv(sys.argv[1], sys.argv[1:])
    try:
        read_until(master, b"listening on")
        os.kill(pid, signal.SIGHUP)
        read_until(master, b"the settings were reloaded")
        os.close(master)
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    print(f"exit {os.waitstatus_to_exitcode(status)}")


main()
