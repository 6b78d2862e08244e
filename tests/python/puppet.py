"""A client that does what it is told: one JSON object a line comes in, one for each thing that happens goes
out. A test plays several people on several devices with it.

    {"open": "phone", "path": "/ws/chat", "token": "…"}     {"say": "phone", "text": "…"}     {"close": "phone"}
    {"from": "phone", "opened": true}   {"from": "phone", "text": "…"}   {"from": "phone", "closed": 1006}

The server's `ping` is answered here and not told.
"""

import argparse
import asyncio
import json
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

sockets: dict[str, ClientConnection] = {}


def tell(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)


async def listen(name: str, socket: ClientConnection) -> None:
    try:
        while True:
            text = await socket.recv()
            if json.loads(text)["type"] == "ping":
                await socket.send(json.dumps({"type": "pong"}))
            else:
                tell({"from": name, "text": text})
    except ConnectionClosed as closed:
        tell({"from": name, "closed": closed.rcvd.code if closed.rcvd else 1006})


async def obey(url: str) -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    listeners = []
    while line := await orders.readline():
        order = json.loads(line)
        if name := order.get("open"):
            token = {"Authorization": f"Bearer {order['token']}"}
            address = url + order["path"]
            sockets[name] = await connect(
                address, additional_headers=token, compression=None, proxy=None, ping_interval=None
            )
            tell({"from": name, "opened": True})
            listeners.append(asyncio.create_task(listen(name, sockets[name])))
        elif name := order.get("say"):
            await sockets[name].send(order["text"])
        elif name := order.get("close"):
            await sockets[name].close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="ws://127.0.0.1:8000")
    asyncio.run(obey(parser.parse_args().url))


if __name__ == "__main__":
    main()
