// What stands between a client and its server: portals, proxies and machines that answer something else.
// It must never leave this machine.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { RoomkeeperClient, WebSocketManager, type WSConnectionAttempt } from '../src/index.js';
import { when } from './binary.js';

const servers: Server[] = [];
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

async function listen(server: Server): Promise<string> {
  servers.push(server);
  server.on('connection', (socket: Socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const http = (answer: (request: IncomingMessage, response: ServerResponse) => void) => {
  const server = createServer(answer);
  server.on('upgrade', (request, socket) => {
    const response = { statusCode: 0, headers: '' };
    answer(request, {
      writeHead: (status: number, headers: object = {}) => {
        response.statusCode = status;
        response.headers = Object.entries(headers)
          .map(([name, value]) => `${name}: ${value}\r\n`)
          .join('');
        return {
          end: (body = '') =>
            socket.end(`HTTP/1.1 ${status} X\r\n${response.headers}content-length: ${body.length}\r\n\r\n${body}`),
        };
      },
    } as never);
  });
  return listen(server);
};
const raw = (answer: (socket: Socket) => void) => listen(createTcpServer(answer));

async function firstAttempt(url: string, connectionTimeoutMs = 15_000): Promise<WSConnectionAttempt> {
  const options = { WebSocket, log: null, connectionTimeoutMs };
  const manager = new WebSocketManager(url, 'x', options);
  manager.connect();
  await when(
    () => manager.getState().phase === 'failed',
    (told) => manager.onStateChange(told),
  );
  const [attempt] = manager.getState().recent_attempts;
  manager.disconnect();
  expect(manager.getState().phase).toBe('idle');
  return attempt as WSConnectionAttempt;
}

describe('an attempt fails, is classified, and is made again', () => {
  // K07.
  it.each([
    [200, 'network'],
    [302, 'network'],
    [400, 'handshake'],
    [407, 'handshake'],
    [429, 'handshake'],
    [502, 'server_error'],
    [503, 'server_error'],
  ])('HTTP %i is %s', async (status, expected) => {
    const place = await http((_, response) => response.writeHead(status, { location: '/login' }).end('<html>'));
    expect(await firstAttempt(`ws://${place}`)).toMatchObject({ error_class: expected, close_code: 1006 });
  });

  it('an address that does not exist', async () => {
    expect((await firstAttempt('ws://nowhere.invalid')).error_class).toBe('network');
  });

  it('TLS where there is none', async () => {
    const place = await raw((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    expect((await firstAttempt(`wss://${place}`)).error_class).toBe('network');
  });

  it('a machine that takes the connection and says nothing', async () => {
    const place = await raw(() => {});
    expect((await firstAttempt(`ws://${place}`, 500)).error_class).toBe('timeout');
  });

  it('a machine that talks, but not HTTP', async () => {
    const place = await raw((socket) => socket.end('220 mail.example.com ESMTP\r\n'));
    expect((await firstAttempt(`ws://${place}`)).error_class).toBe('network');
  });

  // K10: what nobody offered.
  it.each([
    ['a wrong Sec-WebSocket-Accept', 'Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n'],
    ['a sub-protocol that nobody asked for', 'Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: evil\r\n'],
    [
      'an extension that nobody asked for',
      'Sec-WebSocket-Accept: x\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n',
    ],
  ])('%s', async (_, headers) => {
    const answer = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n${headers}\r\n`;
    const place = await raw((socket) => socket.once('data', () => socket.write(answer)));
    expect((await firstAttempt(`ws://${place}`)).error_class).toBe('network');
  });
});

describe('protocol v2', () => {
  it('goes on trying behind a portal until the server is there', async () => {
    let isOpen = false;
    const wss = new WebSocketServer({ noServer: true });
    const server = createServer();
    server.on('upgrade', (request, socket, head) => {
      if (!isOpen) return socket.end('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>');
      wss.handleUpgrade(request, socket, head, (peer) =>
        peer.send('{"type":"hello","features":[],"rooms":[],"resumed":[]}'),
      );
    });
    const place = await listen(server);
    const client = new RoomkeeperClient({
      url: `ws://${place}`,
      WebSocket,
      backoff: { baseMs: 10, capMs: 20 },
    });
    let losses = 0;
    client.on('lost', () => {
      losses += 1;
      isOpen = losses === 3;
    });
    client.connect();
    await when(
      () => client.state.phase === 'open',
      (told) => client.on('state', told),
    );
    expect(losses).toBe(3);
    client.close();
    wss.close();
  });
});
