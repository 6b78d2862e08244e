// What tests of the clients have in common: a fake server, clients of it, and what they heard.
// It must never wait in real time.

import {
  type ClientOptions,
  type Room,
  RoomkeeperClient,
  WebSocketManager,
  type WebSocketManagerOptions,
} from '../src/index.js';
import { FakeServer, type FakeServerOptions } from '../src/testing/index.js';

export function serverAndClient(options: FakeServerOptions = {}, more: Partial<ClientOptions> = {}) {
  const server = new FakeServer(options);
  const client = new RoomkeeperClient({ url: 'ws://fake', clientId: 'tab', environment: server.environment, ...more });
  return { server, client, clock: server.clock };
}

export function serverAndManager(options: FakeServerOptions = {}, more: WebSocketManagerOptions = {}) {
  const server = new FakeServer(options);
  const lines: string[] = [];
  const log = (line: string) => lines.push(line);
  const manager = new WebSocketManager('ws://fake', 'abc-123', { environment: server.environment, log, ...more });
  return { server, manager, clock: server.clock, lines };
}

/** What is said in a room from now on. */
export const heardIn = (room: Room<unknown>): unknown[] => {
  const heard: unknown[] = [];
  room.on('message', ({ data }) => heard.push(data));
  return heard;
};

/** In a room, and what is heard there. */
export async function inRoom(options = {}, more = {}) {
  const world = serverAndClient(options, more);
  const room = world.client.room('public:r');
  const heard = heardIn(room);
  world.client.connect();
  const joined = room.join();
  await world.clock.advance(20);
  await joined;
  return { ...world, room, heard };
}
