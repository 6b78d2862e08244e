// The built package in other runtimes than this one, against the built server, which is killed under them.
// It must never install one: Bun and Deno are run where ROOMKEEPER_BUN and ROOMKEEPER_DENO say that they are.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BINARY, Binary, token } from './binary.js';

const HOME = join(import.meta.dirname, '..');
const SCRIPT = join(HOME, 'e2e', 'runtime.mjs');
/** Node 20 has a WebSocket behind a flag. */
const NODE = process.versions.node.startsWith('20.') ? ['--experimental-websocket'] : [];
const RUNTIMES: [string, string | undefined, string[]][] = [
  ['node', process.execPath, NODE],
  ['bun', process.env.ROOMKEEPER_BUN, ['run']],
  ['deno', process.env.ROOMKEEPER_DENO, ['run', '--allow-net', '--allow-read', '--no-lock']],
];

describe.skipIf(!BINARY)('the package as it is shipped', () => {
  const folder = mkdtempSync(join(tmpdir(), 'roomkeeper-runtimes-'));
  let server: Binary;

  beforeAll(async () => {
    const tsc = join(HOME, 'node_modules', 'typescript', 'bin', 'tsc');
    const words = [tsc, '--project', join(HOME, 'tsconfig.build.json'), '--outDir', folder];
    execFileSync(process.execPath, words, { stdio: 'inherit' });
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    server = await Binary.start();
  }, 60_000);
  afterAll(async () => {
    await server?.end();
    rmSync(folder, { recursive: true, force: true });
  });

  for (const [name, path, flags] of RUNTIMES) {
    it.skipIf(!path)(`runs in ${name}: what was said while the server was dead comes once`, async () => {
      const words = [...flags, SCRIPT, pathToFileURL(folder).href, server.url(''), token(name)];
      const child = spawn(path as string, words, { stdio: ['ignore', 'pipe', 'inherit'] });
      const said: string[] = [];
      const over = new Promise<number | null>((resolve) => child.once('exit', resolve));
      try {
        for await (const line of createInterface({ input: child.stdout })) {
          said.push(line);
          if (line === 'joined') await server.kill();
          if (line.startsWith('lost')) await server.restart();
        }
        expect([await over, ...said]).toEqual([
          0,
          'fake server: before, while away',
          'joined',
          'lost abnormal',
          'server: before, while away once',
        ]);
      } finally {
        child.kill('SIGKILL');
      }
    });
  }
});
