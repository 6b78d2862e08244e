// The built server as a process: started on a free port, killed, started again on the same one.
// It must never outlive the test that started it.

import { type ChildProcess, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** The binary under test; tests/run says where it is. */
export const BINARY = process.env.ROOMKEEPER_BIN;
/** Under tests/run a binary that is not there is a failure, not a skip. */
export const IS_REQUIRED = process.env.ROOMKEEPER_TESTS === 'full';
const SECRET = 'a-secret-of-the-tests-that-is-long-enough-for-hs256';

/** A good token of a user. */
export function token(user: string, more: object = {}): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, iat: now, exp: now + 3600, ...more })}`;
  return `${body}.${createHmac('sha256', SECRET).update(body).digest('base64url')}`;
}

/** A server process. */
export class Binary {
  #child: ChildProcess | null = null;
  #data = mkdtempSync(join(tmpdir(), 'roomkeeper-ts-'));
  #port = 0;

  constructor(readonly more: string[] = []) {}

  static async start(more: string[] = []): Promise<Binary> {
    const binary = new Binary(more);
    await binary.restart();
    return binary;
  }

  url(path: string): string {
    return `ws://127.0.0.1:${this.#port}${path}`;
  }

  /** Starts it again, with the same port and data. */
  async restart(): Promise<void> {
    const set = ['--set', `auth.hmac_secret=${SECRET}`];
    const words = [
      'serve',
      '--profile',
      'testing',
      '--listen',
      `127.0.0.1:${this.#port}`,
      '--data-dir',
      this.#data,
      ...set,
      ...this.more,
    ];
    const child = spawn(BINARY as string, words, { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#child = child;
    this.#port = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`it ended with ${code} instead of listening`)));
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
        const port = /^listening on https?:\/\/[^:]+:(\d+)/.exec(line)?.[1];
        if (port) resolve(Number(port));
      });
    });
  }

  /** SIGKILL: no word to anybody. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child) return;
    this.#child = null;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }

  async end(): Promise<void> {
    await this.kill();
    rmSync(this.#data, { recursive: true, force: true });
  }
}

/** Waits for something to be so, whenever that is told; fails after the deadline. */
export function when(isSo: () => boolean, tells: (check: () => void) => () => void, ms = 20_000): Promise<void> {
  return new Promise((resolve, reject) => {
    let off = () => {};
    const deadline = setTimeout(() => {
      off();
      reject(new Error(`it is not so within ${ms} ms`));
    }, ms);
    const check = () => {
      if (!isSo()) return;
      clearTimeout(deadline);
      off();
      resolve();
    };
    off = tells(check);
    check();
  });
}
