"""A reader that wants some messages only: subscribes, publishes a list, and prints what it gets.

    python selective.py --url ws://127.0.0.1:8000/ws/v2/connect \
        --subscribe '[{"room":"public:news","filter":{"eq":{"lang":"de"}}}]' \
        --publish '[{"room":"public:news","data":1,"tags":{"lang":"de"}}]' --count 1

Prints every frame as a JSON line; ends with 0 once as many messages as `--count` says have come.
"""

import argparse
import asyncio
import json
import sys
from urllib.parse import urlencode

from websockets.asyncio.client import connect


async def read(url: str, wanted: list[dict], publishes: list[dict], count: int) -> None:
    subscribed = messages = 0
    async with connect(url, compression=None, proxy=None) as socket:
        async for message in socket:
            for line in filter(str.strip, message.split("\n")):
                frame = json.loads(line)
                print(json.dumps(frame), flush=True)
                match frame:
                    case {"type": "hello"}:
                        for index, what in enumerate(wanted):
                            command = {"type": "subscribe", "id": index + 1} | what
                            await socket.send(json.dumps(command))
                    case {"type": "subscribed"}:
                        subscribed += 1
                        for what in publishes if subscribed == len(wanted) else []:
                            await socket.send(json.dumps({"type": "publish"} | what))
                    case {"type": "message"}:
                        messages += 1
                        if messages == count:
                            return
                    case {"type": "error"}:
                        sys.exit(f"refused: {line}")
                    case _:
                        pass
    sys.exit(f"closed with {socket.close_code} {socket.close_reason}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws/v2/connect")
    parser.add_argument("--token", default="")
    parser.add_argument("--subscribe", type=json.loads, default=[])
    parser.add_argument("--publish", type=json.loads, default=[])
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=10)
    given = parser.parse_args()
    url = f"{given.url}?{urlencode({'token': given.token})}" if given.token else given.url
    reading = read(url, given.subscribe, given.publish, given.count)
    try:
        asyncio.run(asyncio.wait_for(reading, given.timeout))
    except TimeoutError:
        sys.exit(f"not {given.count} messages within {given.timeout} s")


if __name__ == "__main__":
    main()
