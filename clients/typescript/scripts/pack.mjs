// Packs the package as npm would publish it, looks at what is in it, and loads every entry from there.
// It must never load an entry from the sources, nor its types: what is checked is what is shipped.
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const home = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'roomkeeper-pack-'));
const complaints = [];
try {
  const said = execFileSync('npm', ['pack', '--json', '--pack-destination', folder], {
    cwd: home,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [{ filename, files, unpackedSize }] = JSON.parse(said.slice(said.indexOf('[\n')));
  const names = files.map(({ path }) => path);
  for (const name of names) {
    if (!/^(package\.json|README\.md|LICENSE|dist\/.+\.(js|d\.ts))$/.test(name))
      complaints.push(`${name} does not belong into the package`);
  }
  const { exports, dependencies } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'));
  if (dependencies) complaints.push('the package has dependencies at run time');
  for (const target of Object.values(exports).flatMap((one) => (typeof one === 'string' ? one : Object.values(one)))) {
    if (!names.includes(target.slice(2))) complaints.push(`${target} is exported and not in the package`);
  }
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@roomkeeper'), { recursive: true });
  execFileSync('tar', ['-xzf', join(folder, filename), '-C', folder]);
  symlinkSync(join(folder, 'package'), join(modules, '@roomkeeper', 'client'));
  symlinkSync(join(home, 'node_modules', 'react'), join(modules, 'react'));
  const entries = Object.keys(exports)
    .filter((name) => name !== './package.json')
    .map((name) => `@roomkeeper/client${name.slice(1)}`);
  const script = `${entries.map((name, n) => `import * as e${n} from ${JSON.stringify(name)};`).join('\n')}
console.log(JSON.stringify([${entries.map((_, n) => `Object.keys(e${n})`)}]));`;
  writeFileSync(join(folder, 'load.mjs'), script);
  // A package that is linked finds React beside the link, as one that is installed does.
  const flags = ['--preserve-symlinks', '--preserve-symlinks-main', join(folder, 'load.mjs')];
  const loaded = JSON.parse(execFileSync(process.execPath, flags, { encoding: 'utf8' }));
  for (const [n, keys] of loaded.entries()) if (keys.length === 0) complaints.push(`${entries[n]} exports nothing`);
  // Whoever compiles against it, in the two ways that there are of finding an entry's types, and reading all of them.
  symlinkSync(join(home, 'node_modules', '@types'), join(modules, '@types'));
  copyFileSync(join(home, 'scripts', 'consumer.tsx'), join(folder, 'consumer.tsx'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  const options = { strict: true, noEmit: true, skipLibCheck: false, target: 'es2022', jsx: 'react-jsx', types: [] };
  for (const [moduleResolution, module] of [
    ['nodenext', 'nodenext'],
    ['bundler', 'esnext'],
  ]) {
    const compilerOptions = { ...options, module, moduleResolution, lib: ['es2022', 'dom', 'dom.iterable'] };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['consumer.tsx'] }));
    const tsc = [join(home, 'node_modules', 'typescript', 'bin', 'tsc'), '--project', folder];
    const { status, stdout } = spawnSync(process.execPath, tsc, { encoding: 'utf8' });
    if (status !== 0) complaints.push(`the types do not hold with ${moduleResolution}:\n${stdout}`);
  }
  console.log(`${names.length} files, ${unpackedSize} bytes; ${entries.length} entries load, and compile`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
for (const complaint of complaints) console.error(complaint);
process.exit(complaints.length === 0 ? 0 : 1);
