// An application that meddles: whatever its listeners are told, they may join, leave, publish, disconnect and connect.
// It must never depend on the machine's clock; a failure names its seed.

import { describe, expect, it } from 'vitest';
import { type Room, RoomkeeperClient } from '../src/index.js';
import { FakeServer } from '../src/testing/index.js';
import { seeded } from '../src/testing/network.js';

const ROOMS = ['public:a', 'public:b', 'public:c'];
const SEEDS = 300;
const EVENTS = 60;
/** How many things listeners do within one event from outside: two that answer each other would never end. */
const MEDDLES_MAX = 4;

/** An application, what it wants, and what it was told. */
class Meddler {
  readonly client: RoomkeeperClient;
  readonly rooms: Room<string>[];
  readonly wanted = new Map<string, { presence: boolean }>();
  readonly said = new Map<string, string[]>(ROOMS.map((name) => [name, []]));
  readonly heard = new Map<string, string[]>(ROOMS.map((name) => [name, []]));
  readonly violations: string[] = [];
  #left = 0;
  #n = 0;

  constructor(
    server: FakeServer,
    readonly random: () => number,
  ) {
    this.client = new RoomkeeperClient({ url: 'ws://fake', token: 'ann', environment: server.environment });
    this.client.on('violation', (words) => this.violations.push(words));
    for (const name of ['state', 'hello', 'lost'] as const) this.client.on(name, () => this.#meddle());
    this.rooms = ROOMS.map((name) => this.client.room<string>(name));
    for (const room of this.rooms) {
      room.on('message', ({ data }) => this.heard.get(room.name)?.push(data));
      for (const name of ['state', 'joined', 'left', 'message', 'gap', 'caughtUp', 'presence'] as const) {
        room.on(name, () => this.#meddle());
      }
    }
  }

  /** From now on listeners may do as much again. */
  allow(): void {
    this.#left = MEDDLES_MAX;
  }

  /** From now on they only listen. */
  calm(): void {
    this.#left = 0;
    this.client.connect();
  }

  #meddle(): void {
    if (this.#left === 0 || this.random() < 0.7) return;
    this.#left -= 1;
    this.act();
  }

  act(): void {
    const room = this.rooms[Math.floor(this.random() * this.rooms.length)] as Room<string>;
    switch (Math.floor(this.random() * 9)) {
      case 0:
        this.wanted.delete(room.name);
        void room.leave();
        break;
      case 1:
      case 2:
        if (!this.wanted.has(room.name)) this.wanted.set(room.name, { presence: false });
        void room.join();
        break;
      case 3:
        this.wanted.set(room.name, { presence: true });
        void room.join({ presence: true });
        break;
      case 4:
        this.client.disconnect();
        break;
      case 5:
        this.client.disconnect();
        this.client.connect();
        break;
      case 6:
        this.client.connect();
        break;
      default: {
        this.#n += 1;
        const data = `ann-${this.#n}`;
        this.said.get(room.name)?.push(data);
        void room.publish(data);
      }
    }
  }
}

const UNAVAILABLE = { code: 114, error: 'unavailable', retry_after_ms: 200 };

/** Something happens outside. */
async function happen(server: FakeServer, random: () => number): Promise<void> {
  switch (Math.floor(random() * 9)) {
    case 7:
      server.refusals.set(random() < 0.5 ? 'subscribe' : 'unsubscribe', UNAVAILABLE);
      server.refusals.set('presence', UNAVAILABLE);
      break;
    case 8:
      server.refusals.clear();
      break;
    case 0:
      server.breakConnections();
      break;
    case 1:
      server.close(1012, 'restart', random() < 0.5 ? Math.floor(random() * 300) : null);
      break;
    case 2:
      server.crash();
      await server.clock.advance(random() * 500);
      server.restart();
      break;
    case 3:
      server.delay(1 + Math.floor(random() * 100));
      break;
    default:
      server.publish(ROOMS[Math.floor(random() * ROOMS.length)] as string, `server-${random()}`);
  }
}

async function play(seed: number): Promise<void> {
  const random = seeded(seed);
  const server = new FakeServer({ seed, durable: true, entriesMax: 1_000_000, anonymous: random() < 0.5 });
  const meddler = new Meddler(server, random);
  for (let n = 0; n < EVENTS; n++) {
    meddler.allow();
    meddler.act();
    await server.clock.advance(random() * 20);
    await happen(server, random);
    await server.clock.advance(random() * 200);
  }
  server.delay(1);
  server.refusals.clear();
  meddler.calm();
  // No wait of the client's own is as long: whatever would only end with it has been forgotten.
  await server.clock.advance(9000);
  check(server, meddler);
  const before = ROOMS.map((name) => meddler.heard.get(name)?.length ?? 0);
  for (const name of ROOMS) server.publish(name, 'last');
  await server.clock.advance(100);
  for (const [n, name] of ROOMS.entries()) {
    const isIn = meddler.wanted.has(name);
    expect([name, meddler.heard.get(name)?.slice(before[n])]).toEqual([name, isIn ? ['last'] : []]);
  }
  meddler.client.close();
  server.crash();
  await server.clock.advance(1000);
  expect([server.clock.pending, server.network.listening, server.network.wires.size]).toEqual([0, 0, 0]);
}

function check(server: FakeServer, { client, rooms, wanted, said, heard, violations }: Meddler): void {
  expect([client.state.phase, client.outboxSize, violations]).toEqual(['open', 0, []]);
  expect(server.connections.size).toBe(1);
  const [connection] = server.connections;
  for (const room of rooms) {
    const wish = wanted.get(room.name);
    expect([room.name, room.state]).toEqual([room.name, wish ? 'joined' : 'out']);
    expect([room.name, connection?.rooms.get(room.name)]).toEqual([room.name, wish?.presence]);
    expect([room.name, room.presence?.total]).toEqual([room.name, wish?.presence ? 1 : undefined]);
    // Each publish happened once, in its order, and nothing was told twice.
    const log = server.room(room.name).entries.map((entry) => (entry as { data: string }).data);
    expect(log.filter((data) => data.startsWith('ann'))).toEqual(said.get(room.name));
    const told = heard.get(room.name) ?? [];
    expect(told).toEqual(log.filter((data) => told.includes(data)));
  }
}

describe('an application that meddles', () => {
  const seeds = Array.from({ length: SEEDS }, (_, n) => n + 1);
  it.each(seeds)('with seed %i gets what it wants, once', async (seed) => {
    await play(seed);
  });
});
