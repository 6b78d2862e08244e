// Ten thousand random disconnects, and worse, on virtual time: nothing is lost, doubled, reordered or leaked.
// It must never depend on the machine's clock; a failure names its seed.

import { describe, expect, it } from 'vitest';
import { RoomkeeperClient } from '../src/index.js';
import { FakeServer } from '../src/testing/index.js';
import { seeded } from '../src/testing/network.js';

const ROOMS = ['public:a', 'public:b', 'public:c'];
const RUNS = 20;
const DISCONNECTS = 500;

interface Published {
  room: string;
  data: string;
  /** Whether it comes back to its publisher. */
  echo: boolean;
  end: string | null;
}

/** One client, what it publishes and what it hears. */
class Actor {
  readonly client: RoomkeeperClient;
  readonly heard = new Map<string, string[]>();
  readonly published: Published[] = [];
  readonly gaps: unknown[] = [];
  readonly violations: string[] = [];
  #n = 0;

  constructor(
    readonly server: FakeServer,
    readonly name: string,
  ) {
    this.client = new RoomkeeperClient({ url: 'ws://fake', token: name, environment: server.environment });
    this.client.on('violation', (words) => this.violations.push(words));
    for (const name of ROOMS) {
      const heard: string[] = [];
      this.heard.set(name, heard);
      const room = this.client.room<string>(name);
      room.on('message', ({ data }) => heard.push(data));
      room.on('gap', (gap) => this.gaps.push(gap));
      void room.join({ presence: true });
    }
    this.client.connect();
  }

  publish(room: string): void {
    this.#n += 1;
    const one: Published = { room, data: `${this.name}-${this.#n}`, echo: this.#n % 4 > 0, end: null };
    this.published.push(one);
    this.client
      .room<string>(room)
      .publish(one.data, { echo: one.echo })
      .then(
        () => {
          one.end = 'acked';
        },
        (error) => {
          one.end = error.code;
        },
      );
  }
}

/** One thing that happens. Answers how many connections broke. */
async function happen(server: FakeServer, actors: Actor[], random: () => number): Promise<number> {
  const pick = <T>(list: T[]): T => list[Math.floor(random() * list.length)] as T;
  const broken = server.connections.size;
  switch (Math.floor(random() * 12)) {
    case 0:
    case 1:
    case 2:
      server.breakConnections();
      return broken;
    case 3: {
      const wire = pick([...server.network.wires]);
      wire?.break();
      return wire ? 1 : 0;
    }
    case 4:
      server.crash();
      await server.clock.advance(random() * 3000);
      server.restart();
      return broken;
    case 5:
      server.partition();
      await server.clock.advance(random() * (random() < 0.2 ? 60_000 : 500));
      server.heal();
      return 0;
    case 6:
      server.delay(1 + Math.floor(random() * 300));
      return 0;
    case 7:
      server.close(pick([1012, 1001, 3001, 3003]), 'storm', random() < 0.5 ? Math.floor(random() * 500) : null);
      return broken;
    case 8:
      server.network.wake(pick(['online', 'visible']));
      return 0;
    default:
      for (let n = 0; n < 3; n++) pick(actors).publish(pick(ROOMS));
      return 0;
  }
}

async function storm(seed: number): Promise<number> {
  const random = seeded(seed);
  const server = new FakeServer({ seed, durable: true, entriesMax: 1_000_000, anonymous: false });
  const actors = ['ann', 'bob', 'cyd'].map((name) => new Actor(server, name));
  await server.clock.advance(100);
  let disconnects = 0;
  while (disconnects < DISCONNECTS) {
    disconnects += await happen(server, actors, random);
    await server.clock.advance(random() * 200);
  }
  server.delay(1);
  await server.clock.advance(120_000);
  check(server, actors);
  for (const { client } of actors) client.close();
  server.crash();
  await server.clock.advance(1000);
  expect([server.clock.pending, server.network.listening, server.network.wires.size]).toEqual([0, 0, 0]);
  return disconnects;
}

function check(server: FakeServer, actors: Actor[]): void {
  for (const { client, gaps, violations, published } of actors) {
    expect(client.state.phase).toBe('open');
    expect([gaps, violations, client.outboxSize]).toEqual([[], [], 0]);
    // All were answered within their time: the storm is shorter than that of a publish for most, and whoever
    // was not answered is told so.
    for (const { end } of published) expect(['acked', 'unanswered', 'not_sent']).toContain(end);
  }
  for (const name of ROOMS) {
    const log = server.room(name).entries.map((entry) => (entry as { data: string }).data);
    expect(new Set(log).size).toBe(log.length);
    for (const { heard, published } of actors) {
      // What was not wanted back may come all the same, in its place, when its acknowledgement was lost.
      const here = heard.get(name) ?? [];
      const silent = new Set(published.filter(({ echo }) => !echo).map(({ data }) => data));
      expect(here).toEqual(log.filter((data) => !silent.has(data) || here.includes(data)));
    }
    for (const { client } of actors) {
      const { presence } = client.room(name);
      expect([presence?.total, ...[...(presence?.members.keys() ?? [])].sort()]).toEqual([3, 'ann', 'bob', 'cyd']);
    }
    for (const { published } of actors) {
      const mine = published.filter(({ room }) => room === name);
      // What was acknowledged is there, what was never sent is not, and the order is that of publishing.
      for (const { data, end } of mine) {
        if (end === 'acked') expect(log).toContain(data);
        if (end === 'not_sent') expect(log).not.toContain(data);
      }
      const said = mine.map(({ data }) => data).filter((data) => log.includes(data));
      expect(log.filter((data) => said.includes(data))).toEqual(said);
    }
  }
}

describe('a storm', () => {
  const seeds = Array.from({ length: RUNS }, (_, n) => n + 1);
  it.each(seeds)('with seed %i loses, doubles, reorders and leaks nothing', { timeout: 60_000 }, async (seed) => {
    expect(await storm(seed)).toBeGreaterThanOrEqual(DISCONNECTS);
  });
});
