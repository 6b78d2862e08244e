"""The first five minutes of a newcomer: connect, subscribe, publish, see the own message.

    python first_message.py --url ws://127.0.0.1:8000/ws/v2/connect --room public:hello --text hi

Prints every frame as a JSON line; ends with 0 when the own message has come.
"""

import argparse
import asyncio
import json
import ssl
import sys
from urllib.parse import urlencode

from websockets.asyncio.client import connect


async def first_message(url: str, room: str, text: str, ca: str | None) -> None:
    context = ssl.create_default_context(cafile=ca) if url.startswith("wss:") else None
    async with connect(url, compression=None, proxy=None, ssl=context) as socket:
        async for message in socket:
            for line in filter(str.strip, message.split("\n")):
                frame = json.loads(line)
                print(json.dumps(frame), flush=True)
                match frame:
                    case {"type": "hello"}:
                        await socket.send(json.dumps({"type": "subscribe", "id": 1, "room": room}))
                    case {"type": "subscribed"}:
                        publish = {"type": "publish", "id": 2, "room": room, "data": {"text": text}}
                        await socket.send(json.dumps(publish | {"msg_id": "first"}))
                    case {"type": "message", "data": {"text": said}} if said == text:
                        return
                    case {"type": "error"}:
                        sys.exit(f"refused: {line}")
                    case _:
                        pass
    sys.exit(f"closed with {socket.close_code} {socket.close_reason}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws/v2/connect")
    parser.add_argument("--room", default="public:hello")
    parser.add_argument("--text", default="hello from python")
    parser.add_argument("--token", default="")
    parser.add_argument("--timeout", type=float, default=10)
    parser.add_argument("--ca", help="the certificate to trust for wss://")
    given = parser.parse_args()
    url = f"{given.url}?{urlencode({'token': given.token})}" if given.token else given.url
    try:
        said = first_message(url, given.room, given.text, given.ca)
        asyncio.run(asyncio.wait_for(said, given.timeout))
    except TimeoutError:
        sys.exit(f"no message within {given.timeout} s")


if __name__ == "__main__":
    main()
