// The house rules for this package, and that what is copied here is what it was copied from.
// It must never excuse a file by its name but the one that is made by the server.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const home = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(home, path), 'utf8');
/** Made by `roomkeeper schema typescript`. */
const MADE = 'src/protocol.ts';
const LINES_MAX = 500;

const files = ['src', 'test', 'scripts', '../vectors']
  .flatMap((folder) =>
    readdirSync(join(home, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`),
  )
  .filter((name) => /\.(ts|tsx|mjs)$/.test(name));

describe('the protocol', () => {
  it('is that of the server: copy protocol/roomkeeper.ts when this fails', () => {
    expect(read(MADE) === read('../../protocol/roomkeeper.ts')).toBe(true);
  });
});

describe('every file', () => {
  it.each(files.filter((name) => name !== MADE))('%s says what it is, what it must never do, and is short', (name) => {
    const text = read(name);
    const opening = text.split('\n\n')[0] ?? '';
    expect(opening.startsWith('// ')).toBe(true);
    expect(text.split('\n').slice(0, 8).join('\n')).toMatch(/must never/);
    expect(text.split('\n').length).toBeLessThanOrEqual(LINES_MAX + 1);
  });
});

describe('the package', () => {
  it('has no dependency at run time, and React only beside it', () => {
    const { dependencies, peerDependencies } = JSON.parse(read('package.json'));
    expect(dependencies).toBeUndefined();
    expect(peerDependencies).toEqual({ react: '>=18' });
  });

  it('needs React in its React entries alone', () => {
    const importing = files.filter((name) => name.startsWith('src/') && /from 'react/.test(read(name)));
    for (const name of importing) expect(name).toMatch(/^src\/(react|diagnostics)\//);
  });

  it('names a reason for each of its tools', () => {
    const { devDependencies } = JSON.parse(read('package.json'));
    const reasons = read('../../docs/dependencies.md');
    for (const name of Object.keys(devDependencies)) expect(reasons.includes(`| ${name} (npm)`), name).toBe(true);
  });
});

describe('the vectors', () => {
  it('are those of their tables', async () => {
    const { spawnSync } = await import('node:child_process');
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(home, '../vectors/make.mjs'), '--check'], {
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([0, '']);
    expect(Number(/^(\d+) cases/.exec(stdout)?.[1])).toBeGreaterThanOrEqual(300);
  });
});
