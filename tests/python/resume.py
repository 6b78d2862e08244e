"""Joins two rooms, loses its connection, and comes back with its ticket and its positions in one
`connect`, without the token. Prints what `hello` brought back.

    python resume.py --url ws://127.0.0.1:8000/ws/v2/connect --token JWT
"""

import argparse
import asyncio
import json
import sys
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect

ROOMS = ("chat:one", "chat:two")


async def answer(socket: ClientConnection, kind: str) -> dict:
    """The next frame of this type; an error ends everything."""
    async for message in socket:
        for line in filter(str.strip, message.split("\n")):
            frame = json.loads(line)
            if frame["type"] == "error":
                sys.exit(f"refused: {line}")
            if frame["type"] == kind:
                return frame
    sys.exit(f"closed with {socket.close_code} {socket.close_reason}")


async def come_back(url: str, token: str) -> list:
    with_token = f"{url}?{urlencode({'token': token})}"
    options = {"compression": None, "proxy": None}
    positions = []
    async with connect(with_token, **options) as socket:
        session = (await answer(socket, "hello"))["session"]
        for room in ROOMS:
            await socket.send(json.dumps({"type": "subscribe", "id": 1, "room": room}))
            told = await answer(socket, "subscribed")
            positions.append({key: told[key] for key in ("room", "epoch", "offset")})
        socket.transport.abort()
    async with connect(with_token, **options) as other:
        await answer(other, "hello")
        for room, data in (("chat:one", 1), ("chat:one", 2), ("chat:two", "missed meanwhile")):
            publish = {"type": "publish", "id": 1, "room": room, "data": data}
            await other.send(json.dumps(publish))
            await answer(other, "ack")
    async with connect(url, **options) as socket:
        back = {"type": "connect", "id": 1, "session": session, "resume": positions}
        await socket.send(json.dumps(back))
        return (await answer(socket, "hello"))["resumed"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws/v2/connect")
    parser.add_argument("--token", required=True)
    parser.add_argument("--timeout", type=float, default=20)
    given = parser.parse_args()
    try:
        back = asyncio.run(asyncio.wait_for(come_back(given.url, given.token), given.timeout))
    except TimeoutError:
        sys.exit(f"nothing came back within {given.timeout} s")
    print(json.dumps(back))


if __name__ == "__main__":
    main()
