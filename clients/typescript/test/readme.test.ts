// What the README shows does what the README says: its snippets are run, against the built server where they need one.
// It must never change a snippet but for the addresses in it.

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { RoomkeeperClient } from '../src/index.js';
import { BINARY, Binary, when } from './binary.js';

const HOME = join(import.meta.dirname, '..');
const README = readFileSync(join(HOME, 'README.md'), 'utf8');
/** Node 20 has a WebSocket behind a flag. */
const FLAGS = process.versions.node.startsWith('20.') ? ['--experimental-websocket'] : [];

/** The first snippet below a heading, with other addresses. */
function snippet(heading: string, url: string): string {
  const below = README.split(new RegExp(`^#+ ${heading}.*$`, 'm'))[1] ?? '';
  const text = /^```ts\n([\s\S]*?)^```$/m.exec(below)?.[1];
  if (!text) throw new Error(`there is no snippet below ${heading}`);
  return text.replaceAll(/ws:\/\/(localhost|custom-host):8000/g, url);
}

/** Runs one until it says a line, or ends; what it has said. */
async function run(text: string, until: string): Promise<string[]> {
  const sources = text.replaceAll(/'@roomkeeper\/client(?:\/(\w+))?'/g, (_, name) =>
    JSON.stringify(join(HOME, 'src', ...(name ? [name] : []), 'index.ts')),
  );
  const stdin = { contents: sources, resolveDir: HOME, loader: 'ts' } as const;
  const bundle = await build({
    stdin,
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    packages: 'external',
  });
  const words = [...FLAGS, '--no-warnings', '--input-type=module', '--eval', bundle.outputFiles[0]?.text ?? ''];
  const child = spawn(process.execPath, words, { cwd: HOME, stdio: ['ignore', 'pipe', 'inherit'] });
  const said: string[] = [];
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      said.push(line);
      if (line === until) break;
    }
  } finally {
    child.kill('SIGKILL');
  }
  return said;
}

it('the one for tests of an own interface', async () => {
  expect(await run(snippet('Testing your own interface', ''), '')).toEqual(["[ 'missed' ]"]);
});

describe.skipIf(!BINARY)('with a server', () => {
  let server: Binary;
  beforeAll(async () => {
    server = await Binary.start();
  });
  afterAll(() => server?.end());

  it('the one for a browser hears itself', async () => {
    const said = await run(snippet('In a browser', server.url('')), 'null hello');
    expect(said).toEqual(['null hello']);
  });

  it('the one for Node hears others', async () => {
    const other = new RoomkeeperClient({ url: server.url(''), WebSocket });
    const room = other.room('public:lobby');
    other.connect();
    await room.join({ presence: true });
    await when(
      () => room.presence?.total === 1,
      (told) => room.on('presence', told),
    );
    const said = run(snippet('Node, Bun, Deno', server.url('')), 'hello');
    await when(
      () => room.presence?.total === 2,
      (told) => room.on('presence', told),
    );
    await room.publish('hello');
    expect(await said).toEqual(['hello']);
    other.close();
  });

  it('the one for `WebSocketManager` connects, and says so', async () => {
    const said = await run(snippet('`WebSocketManager`', server.url('')), '[WS] transition from connecting to open');
    expect(said).toContain('[WS] Received hello message from server');
  });
});
