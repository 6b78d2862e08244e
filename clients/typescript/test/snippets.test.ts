// Whatever the README shows compiles, strictly, against this package.
// It must never compile a snippet that differs from what is shown.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const home = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(join(home, 'README.md'), 'utf8');
const snippets = [...readme.matchAll(/^```(tsx?)\n([\s\S]*?)^```$/gm)].map(([, kind, text]) => ({ kind, text }));

it('the snippets of the README compile', { timeout: 60_000 }, () => {
  expect(snippets.length).toBeGreaterThan(8);
  mkdirSync(join(home, 'node_modules', '.cache'), { recursive: true });
  const folder = mkdtempSync(join(home, 'node_modules', '.cache', 'snippets-'));
  try {
    for (const [n, { kind, text }] of snippets.entries()) {
      writeFileSync(join(folder, `snippet_${n}.${kind}`), `${text}\nexport {};\n`);
    }
    const { exports } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')) as {
      exports: Record<string, unknown>;
    };
    const paths = Object.fromEntries(
      Object.keys(exports)
        .filter((name) => !name.endsWith('.json'))
        .map((name) => [`@roomkeeper/client${name.slice(1)}`, source(name)]),
    );
    const compilerOptions = { rootDir: home, module: 'esnext', moduleResolution: 'bundler', paths };
    const project = { extends: join(home, 'tsconfig.json'), compilerOptions, include: [`${folder}/*`], exclude: [] };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(project));
    expect(compile(folder)).toBe('');
    // The check itself: what is wrong is seen.
    writeFileSync(
      join(folder, 'wrong.ts'),
      "import { RoomkeeperClient } from '@roomkeeper/client';\nnew RoomkeeperClient();\n",
    );
    expect(compile(folder)).toContain('wrong.ts');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

function source(name: string): string[] {
  const path = name === '.' ? 'index' : name.slice(2);
  const folders = ['react', 'testing', 'diagnostics'];
  return [join(home, 'src', folders.includes(path) ? `${path}/index` : path)];
}

function compile(folder: string): string {
  try {
    const tsc = join(home, 'node_modules', 'typescript', 'bin', 'tsc');
    return execFileSync(process.execPath, [tsc, '--project', folder], { encoding: 'utf8', cwd: home });
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}
