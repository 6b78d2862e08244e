"""Clients that keep losing their connection; in the end each holds every message exactly once.

    python storm.py --url ws://127.0.0.1:8000/ws/v2/connect \
        --clients 40 --rooms 4 --messages 1000 --drop 0.1 --seed 1

What ../node/storm.mjs does, smaller and by another hand: all subscribe; each publishes its share;
one in ten drops its TCP connection at random points, comes back with its position, and sends again
what was not acknowledged, under the same msg_id. Prints a JSON report; ends with 1 on a violation.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake


class Violation(Exception):
    """The server broke a promise."""


class Dropped(Exception):
    """We dropped the connection."""


def comes_back(code: int) -> bool:
    """What the range of a close code says: come back or stop."""
    return code in (1001, 1006, 1011, 1012, 1013) or 3000 <= code < 3500


class Storm:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.rooms = [f"{given.prefix}/{given.seed}/{n}" for n in range(given.rooms)]
        share, rest = divmod(given.messages, given.clients)
        shares = [share + (n < rest) for n in range(given.clients)]
        self.totals = dict.fromkeys(self.rooms, 0)
        for n, size in enumerate(shares):
            self.totals[self.rooms[n % given.rooms]] += size
        self.count = dict.fromkeys(("deliveries", "drops", "connects", "retried", "recovered", "pages"), 0)
        self.begun = asyncio.Event()
        self.finished = asyncio.Event()
        self.clients = [Client(self, n, shares[n]) for n in range(given.clients)]

    async def run(self) -> list[str]:
        """Gives the violations."""
        tasks = [asyncio.create_task(client.live()) for client in self.clients]
        finished = asyncio.create_task(self.finished.wait())
        done, _ = await asyncio.wait(
            [*tasks, finished], timeout=self.given.timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if finished in done:
            # A moment for what must not come: a message too many.
            late, _ = await asyncio.wait(tasks, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            done |= late
        violations = [] if done else [f"not done after {self.given.timeout} s"]
        for task in tasks:
            if not task.done():
                task.cancel()
        for client, result in zip(self.clients, await asyncio.gather(*tasks, return_exceptions=True)):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                violations.append(f"{client.name}: {result!r}")
        return violations + [words for client in self.clients for words in client.audit()]

    def progress(self) -> None:
        """Everybody is subscribed, then everybody is done."""
        if all(client.epoch is not None for client in self.clients):
            self.begun.set()
        if self.begun.is_set() and all(client.is_done() for client in self.clients):
            self.finished.set()


class Client:
    def __init__(self, storm: Storm, number: int, share: int) -> None:
        given = storm.given
        self.storm = storm
        self.name = f"storm-py-{given.seed}-{number}"
        self.url = f"{given.url}?{urlencode({'client_id': self.name})}"
        self.room = storm.rooms[number % given.rooms]
        self.random = random.Random(given.seed * 100_003 + number)
        self.share = share
        self.unsent = [f"{number}.{n}" for n in range(share)]
        self.waiting: dict[int, str] = {}  # command id -> payload, not acknowledged yet
        self.acked: dict[str, int] = {}  # payload -> offset
        self.held: dict[str, int] = {}  # payload -> offset, in the order of their coming
        self.epoch: str | None = None
        self.base = self.offset = 0
        self.commands = 0
        self.is_live = False
        total = storm.totals[self.room]
        drops = given.drops if number < round(given.clients * given.drop) else 0
        self.drops = sorted(self.random.randint(1, max(1, total - 1)) for _ in range(drops))

    def is_done(self) -> bool:
        return len(self.acked) == self.share and len(self.held) >= self.storm.totals[self.room]

    async def live(self) -> None:
        failures = 0
        while True:
            self.storm.count["connects"] += 1
            self.is_live = False
            try:
                await self.one_connection()
            except Dropped:
                failures = 0
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
                if not comes_back(code):
                    raise Violation(f"closed for good with {code}") from closed
                failures += 1
            except (OSError, InvalidHandshake):
                failures += 1
            self.storm.count["retried"] += len(self.waiting)
            self.unsent = [*self.waiting.values(), *self.unsent]
            self.waiting.clear()
            await asyncio.sleep(self.random.random() * 0.3 * min(2**failures, 8))

    async def one_connection(self) -> None:
        async with connect(self.url, compression=None, proxy=None, max_size=None) as socket:
            publisher = asyncio.create_task(self.publish_when_begun(socket))
            try:
                while True:
                    for line in filter(str.strip, (await socket.recv()).split("\n")):
                        await self.frame(socket, json.loads(line))
            except Dropped:
                socket.transport.abort()
                raise
            finally:
                publisher.cancel()

    async def publish_when_begun(self, socket) -> None:
        await self.storm.begun.wait()
        await self.publish(socket)

    async def frame(self, socket, frame: dict) -> None:
        match frame["type"]:
            case "hello":
                await self.subscribe(socket)
            case "subscribed" if self.epoch is None:
                self.epoch, self.offset, self.base = frame["epoch"], frame["offset"], frame["offset"]
                self.is_live = True
                self.storm.progress()
            case "subscribed" | "page":
                if frame["type"] == "page":
                    self.storm.count["pages"] += 1
                elif not frame["recovered"]:
                    raise Violation(f"not recovered: {frame}")
                await self.missed(socket, frame)
            case "message":
                self.message(frame)
            case "ack":
                self.acknowledged(frame)
                await self.publish(socket)
            case "ping":
                await socket.send('{"type":"pong"}')
            case "error" | "gap" | "unsubscribed" | "tombstone":
                raise Violation(f"got {frame}")

    async def subscribe(self, socket) -> None:
        self.commands += 1
        command = {"type": "subscribe", "id": self.commands, "room": self.room}
        if self.epoch is not None:
            command["since"] = {"epoch": self.epoch, "offset": self.offset}
        await socket.send(json.dumps(command))

    async def missed(self, socket, frame: dict) -> None:
        for message in frame["messages"]:
            self.storm.count["recovered"] += 1
            self.message(message)
        if not frame["more"]:
            if frame["offset"] != self.offset:
                raise Violation(f"{frame['type']} says {frame['offset']}, messages end at {self.offset}")
            self.is_live = True
            await self.publish(socket)

    def message(self, frame: dict) -> None:
        n, offset = frame["data"]["n"], frame["offset"]
        if frame["room"] != self.room or frame["epoch"] != self.epoch:
            raise Violation(f"{n} is of another room or epoch: {frame}")
        if offset != self.offset + 1:
            raise Violation(f"offset {offset} after {self.offset}")
        if n in self.held:
            raise Violation(f"{n} came at {self.held[n]} and again at {offset}")
        self.held[n] = self.offset = offset
        self.storm.count["deliveries"] += 1
        if self.drops and len(self.held) >= self.drops[0]:
            self.drops.pop(0)
            self.storm.count["drops"] += 1
            raise Dropped
        self.storm.progress()

    async def publish(self, socket) -> None:
        while self.is_live and self.storm.begun.is_set() and self.unsent:
            if len(self.waiting) >= self.storm.given.window:
                return
            self.commands += 1
            n = self.waiting[self.commands] = self.unsent.pop(0)
            command = {"type": "publish", "id": self.commands, "room": self.room, "msg_id": n}
            await socket.send(json.dumps(command | {"data": {"n": n, "said": "in a storm"}, "echo": True}))

    def acknowledged(self, frame: dict) -> None:
        n = self.waiting.pop(frame["id"], None)
        if n is None or n in self.acked:
            raise Violation(f"ack for {frame['id']}, which was not asked or answered before")
        self.acked[n] = frame["offset"]
        self.storm.progress()

    def audit(self) -> list[str]:
        """What is wrong with all that this client holds in the end."""
        words = []
        total = self.storm.totals[self.room]
        first = next(client for client in self.storm.clients if client.room == self.room)
        if len(self.acked) != self.share:
            words.append(f"{len(self.acked)} of {self.share} acknowledged")
        if len(self.held) != total:
            words.append(f"holds {len(self.held)} of {total} messages")
        if (self.epoch, self.base, list(self.held)) != (first.epoch, first.base, list(first.held)):
            words.append(f"differs from {first.name}")
        words += [f"ack of {n} at {at}, came {self.held.get(n)}" for n, at in self.acked.items() if self.held.get(n) != at]
        return [f"{self.name}: {each}" for each in words]


async def storm(given: argparse.Namespace) -> bool:
    started = time.monotonic()
    all_of_it = Storm(given)
    violations = (await all_of_it.run())[:50]
    size = {"clients": given.clients, "rooms": given.rooms, "messages": given.messages, "seed": given.seed}
    seconds = round(time.monotonic() - started, 3)
    print(json.dumps(size | {"seconds": seconds} | all_of_it.count | {"violations": violations}), flush=True)
    return not violations


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="ws://127.0.0.1:8000/ws/v2/connect")
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--drop", type=float, default=0.1, help="the part of the clients that drops")
    parser.add_argument("--drops", type=int, default=3, help="how often each of them drops")
    parser.add_argument("--window", type=int, default=8, help="publishes under way per client")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for all of it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefix", default="public:storm-py")
    sys.exit(0 if asyncio.run(storm(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
