"""A client of /ws as document 004 has it: refused over HTTP without a token; with one a welcome, the list of
users, plain text, JSON, a ping, a type that nobody handles.

    python document_004.py --url ws://127.0.0.1:8000/ws --token eyJ…
"""

import argparse
import asyncio
import json

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

# What is said behind each type that comes.
ANSWERS = {
    "user_list": ["plain text"],
    "chat": [json.dumps({"type": "ping"})],
    "pong": [json.dumps({"type": "custom_message", "content": "x"})],
}


async def talk(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    told: list[str] = []
    async with connect(url, additional_headers=headers, compression=None, proxy=None) as socket:
        while "error" not in told:
            message = json.loads(await socket.recv())
            told.append(message["type"])
            if message["type"] == "chat":
                told.append(message["message"])
            if "code" in message:
                told.append(str(message["code"]))
            for text in ANSWERS.get(message["type"], []):
                await socket.send(text)
    print(" ".join(told))


async def refused(url: str) -> None:
    try:
        async with connect(url, compression=None, proxy=None):
            pass
    except InvalidStatus as refusal:
        print(f"refused {refusal.response.status_code}")


async def all_of_it(url: str, token: str) -> None:
    await talk(url, token)
    await refused(url)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws")
    parser.add_argument("--token", default="")
    arguments = parser.parse_args()
    asyncio.run(asyncio.wait_for(all_of_it(arguments.url, arguments.token), 10))


if __name__ == "__main__":
    main()
