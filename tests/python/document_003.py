"""A client of /ws/client as document 003 has it: the handshake, ping, status, a type of its own, and the
codes for parameters that are wrong.

    python document_003.py --url ws://127.0.0.1:8000/ws/client
"""

import argparse
import asyncio
import json
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import uuid4

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def talk(url: str) -> None:
    client_id = str(uuid4())
    query = {"client_id": client_id, "version": 1, "role": "frontend"}
    async with connect(f"{url}?{urlencode(query)}", compression=None, proxy=None) as socket:
        hello = json.loads(await socket.recv())
        assert hello["client_id"] == client_id, hello
        told = [hello["type"], str(hello["accepted_version"])]
        for kind in ("ping", "status", "test_message"):
            said = {"type": kind, "timestamp": datetime.now(UTC).isoformat()}
            await socket.send(json.dumps(said))
            answer = json.loads(await socket.recv())
            datetime.fromisoformat(answer["timestamp"])
            told.append(answer["type"])
        told.append(str(answer["code"]))
        print(" ".join(told))


async def refused(url: str, query: dict[str, object]) -> None:
    async with connect(f"{url}?{urlencode(query)}", compression=None, proxy=None) as socket:
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            print(f"closed {closed.rcvd.code}")


async def all_of_it(url: str) -> None:
    await talk(url)
    await refused(url, {"client_id": "a", "version": 2})
    await refused(url, {"client_id": "a", "role": "root"})
    await refused(url, {})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws/client")
    asyncio.run(asyncio.wait_for(all_of_it(parser.parse_args().url), 10))


if __name__ == "__main__":
    main()
