"""Runs a script of this folder and notes what is sent over `websockets` and `http.client`, whoever sends it, and
writes it down at the end, for the test that looks for it in the server's log.

    FOREIGN_SENT=FILE python sent.py SCRIPT ARGUMENT...

The file gets a JSON string a line, one for each text. It must never change what is sent.
"""

import atexit
import http.client
import json
import os
import runpy
import sys

from websockets.asyncio.client import ClientConnection

sent: dict[str, None] = {}


def note(data: object) -> None:
    match data:
        case str():
            sent[data] = None
        case bytes():
            sent[data.decode(errors="replace")] = None
        case _:
            raise TypeError(f"sent.py does not know how to note {type(data).__name__}: teach it")


def write_down() -> None:
    if path := os.environ.get("FOREIGN_SENT"):
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\n" for text in sent)


send = ClientConnection.send
request = http.client.HTTPConnection.request


async def noted_send(self, message, *rest, **named):
    note(message)
    return await send(self, message, *rest, **named)


def noted_request(self, method, url, body=None, *rest, **named):
    if body is not None:
        note(body)
    return request(self, method, url, body, *rest, **named)


ClientConnection.send = noted_send
http.client.HTTPConnection.request = noted_request
atexit.register(write_down)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
