// Measures the main entry as a page would load it, bundled, minified and gzipped, and fails above 10 KiB.
// It must never leave anything out that the entry exports.
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const MAX = 10 * 1024;
const entry = new URL('../src/index.ts', import.meta.url).pathname;
const result = await build({
  stdin: { contents: `export * from ${JSON.stringify(entry)};`, resolveDir: '.' },
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  write: false,
});
const bytes = result.outputFiles[0].contents;
const size = gzipSync(bytes, { level: 9 }).length;
console.log(`@roomkeeper/client: ${bytes.length} bytes minified, ${size} gzipped; ${MAX} at most`);
process.exit(size <= MAX ? 0 : 1);
