// What tests of the clients have in common: a fake server, clients of it, and what they heard.
// It must never wait in real time.

import { type ClientOptions, RoomkeeperClient, WebSocketManager, type WebSocketManagerOptions } from '../src/index.js';
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
