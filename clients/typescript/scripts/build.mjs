// Builds dist/: JavaScript and types of every entry, and the licence beside them.
// It must never leave files of an earlier build behind.
import { execFileSync } from 'node:child_process';
import { copyFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const home = fileURLToPath(new URL('..', import.meta.url));
rmSync(`${home}dist`, { recursive: true, force: true });
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '--project', 'tsconfig.build.json'], {
  cwd: home,
  stdio: 'inherit',
});
copyFileSync(`${home}../../LICENSE`, `${home}LICENSE`);
