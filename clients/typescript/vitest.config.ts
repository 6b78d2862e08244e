// How the tests run: in few processes, since others may build on the same machine.
// It must never hide a failure: no retries, no skipped files.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.{ts,tsx}'],
    pool: 'threads',
    maxWorkers: 2,
    testTimeout: 30_000,
    retry: 0,
    allowOnly: false,
  },
});
