// The stories of document 003 in a real browser, against the built server.
// It must never wait for time to pass: Playwright waits for what the page shows.

import { build } from 'esbuild';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { BINARY, Binary, IS_REQUIRED, token } from './binary.js';
import { Application, HAS_CHROMIUM, type Opened } from './browser.js';

/** Where to leave pictures of the panel for people to look at. */
const PICTURES = process.env.ROOMKEEPER_PICTURES;

/** What runs in a worker, where there is no page. It says what it hears, and of which class a loss was. */
const WORKER = `
  import { RoomkeeperClient } from '../src/index.ts';
  self.onmessage = async ({ data: { url, token } }) => {
    const client = new RoomkeeperClient({ url, token });
    const room = client.room('chat:lobby');
    room.on('message', ({ data }) => self.postMessage(data));
    client.connect();
    await room.join();
    await room.publish('from a worker');
    client.on('lost', (loss) => {
      if (loss.class === 'abnormal') void room.publish('while away').then(() => client.close());
    });
  };
`;

it('under tests/run there is a browser', () => {
  if (IS_REQUIRED) expect(HAS_CHROMIUM).toBe(true);
});

describe.skipIf(!BINARY || !HAS_CHROMIUM)('in a browser', { timeout: 60_000 }, () => {
  let server: Binary;
  let application: Application;
  const opened: Opened[] = [];

  beforeAll(async () => {
    [server, application] = await Promise.all([
      Binary.start(['--set', 'auth.expiry_notice_ms=6000', '--set', 'auth.leeway_ms=0']),
      Application.start(),
    ]);
  }, 60_000);
  afterEach(async () => {
    for (const { page, errors } of opened.splice(0)) {
      expect(errors).toEqual([]);
      await page.context().close();
    }
  });
  afterAll(async () => {
    await application?.end();
    await server?.end();
  });

  async function open(query: Record<string, string> = {}, freshToken?: () => string, beside?: Page): Promise<Page> {
    const one = await application.open({ server: server.url(''), ...query }, freshToken, beside);
    opened.push(one);
    return one.page;
  }

  const shows = (page: Page, selector: string, text: string | RegExp) =>
    page.locator(selector, { hasText: text }).waitFor({ timeout: 30_000 });
  const said = (page: Page) => page.locator('#messages li').allTextContents();
  async function say(page: Page, text: string): Promise<void> {
    await page.fill('#say', text);
    await page.press('#say', 'Enter');
  }

  // K12: a browser.
  it('the full flow: connect, publish, hear, disconnect, connect again', async () => {
    const page = await open();
    await shows(page, '#status', /^Connected$/);
    await shows(page, '#chat-state', 'joined');
    await say(page, 'hello');
    await shows(page, '#messages', 'hello');
    await page.click('text=Disconnect now');
    await shows(page, '#status', 'Disconnected');
    await page.click('text=Connect now');
    await shows(page, '#status', /^Connected$/);
  });

  it('the panel shows what happens, and takes its orders', async () => {
    const page = await open({ wsDebug: '1' });
    const panel = page.locator('aside');
    await shows(page, 'aside', 'WebSocket: open');
    await page.click('text=Send Message');
    await panel.getByText('Ping', { exact: true }).click();
    for (const text of ['heartbeat, structured_messages', 'Uptime', 'hello', 'pong', '#1', 'request r-']) {
      await shows(page, 'aside', text);
    }
    if (PICTURES) await page.screenshot({ path: `${PICTURES}/panel-open.png` });
    await panel.getByText('Disconnect', { exact: true }).click();
    await shows(page, 'aside', 'WebSocket: idle');
    await panel.getByText('Reconnect', { exact: true }).click();
    await shows(page, 'aside', 'WebSocket: open');
    await panel.getByLabel('Close').click();
    expect(await panel.count()).toBe(0);
  });

  it('the panel comes with Ctrl+Shift+W in development, and with the global flag', async () => {
    const page = await open({ dev: '1' });
    await shows(page, '#status', /^Connected$/);
    await page.evaluate(() => {
      dispatchEvent(new KeyboardEvent('keydown', { ctrlKey: true, shiftKey: true, key: 'W' }));
    });
    await page.locator('aside').waitFor();
    const other = await open();
    await other.evaluate(() => Object.assign(window, { __A1_WS_DEBUG: true }));
    await other.locator('aside').waitFor();
  });

  it('the id of the browser is kept in local storage', async () => {
    const page = await open();
    await shows(page, '#status', /^Connected$/);
    const kept = () => page.evaluate(() => localStorage.getItem('ws_client_id'));
    const before = await kept();
    expect(before).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    await page.reload();
    await shows(page, '#status', /^Connected$/);
    expect(await kept()).toBe(before);
  });

  it('two tabs of one user are one member, and hear the same', async () => {
    const fresh = () => token('ann');
    const query = { user: 'ann', room: 'chat:lobby', wsDebug: '1' };
    const one = await open(query, fresh);
    const two = await open(query, fresh, one);
    // Tabs share what is stored: on `/ws/client` both are the same client, and both are served.
    for (const page of [one, two]) {
      await shows(page, '#status', /^Connected$/);
      await page.locator('aside').getByText('Ping', { exact: true }).click();
      await shows(page, 'aside', 'pong');
    }
    const documented = opened.flatMap(({ sockets }) => sockets).filter((socket) => /ws.client[?]/.test(socket.url()));
    expect(documented.map((socket) => socket.isClosed())).toEqual([false, false]);
    expect(new Set(documented.map((socket) => socket.url())).size).toBe(1);
    await shows(one, '#members', /^ann$/);
    await shows(two, '#members', /^ann$/);
    await say(one, 'from one tab');
    await shows(two, '#messages', 'from one tab');
    await say(two, 'from the other');
    await shows(one, '#messages', 'from the other');
    expect(await said(one)).toEqual(await said(two));
  });

  it('a token that ends is refreshed in place: the connection stays', async () => {
    let n = 0;
    const fresh = () => {
      n += 1;
      return token('bob', { exp: Math.floor(Date.now() / 1000) + 8, jti: `t${n}` });
    };
    const page = await open({ user: 'bob', room: 'chat:lobby' }, fresh);
    await shows(page, '#chat-state', 'joined');
    // Each lasts 8 s and is asked for 6 s before the last one ends: with the sixth the first has ended.
    await expect.poll(() => n, { timeout: 30_000, interval: 200 }).toBeGreaterThanOrEqual(6);
    await say(page, 'still here');
    await shows(page, '#messages', 'still here');
    expect(await page.textContent('#losses')).toBe('0');
  });

  it('a token that ends and could not be refreshed ends the connection, which comes back with a fresh one', async () => {
    let n = 0;
    const fresh = () => {
      n += 1;
      if (n === 2) throw new Error('no session');
      return token('fay', n === 1 ? { exp: Math.floor(Date.now() / 1000) + 4 } : {});
    };
    const page = await open({ user: 'fay', room: 'chat:lobby' }, fresh);
    await shows(page, '#chat-state', 'joined');
    await say(page, 'before');
    await shows(page, '#messages', 'before');
    await shows(page, '#loss', 'closed with 3004 token_expired');
    await shows(page, '#chat-state', 'joined');
    await say(page, 'behind it');
    await shows(page, '#messages', 'behind it');
    expect([n, await page.textContent('#losses')]).toEqual([3, '1']);
  });

  it('the server is killed and started again in the middle of a conversation', async () => {
    const query = { room: 'chat:lobby', user: 'x' };
    const one = await open(query, () => token('cyd'));
    const two = await open(query, () => token('dan'));
    await shows(one, '#members', 'cyd, dan');
    await shows(two, '#members', 'cyd, dan');
    const expected: string[] = [];
    for (let round = 0; round < 3; round++) {
      await say(one, `before ${round}`);
      await shows(two, '#messages', `before ${round}`);
      await server.kill();
      await say(one, `while away ${round}`);
      await server.restart();
      await shows(two, '#messages', `while away ${round}`);
      expected.push(`before ${round}`, `while away ${round}`);
    }
    await shows(one, '#messages', 'while away 2');
    expect(await said(two)).toEqual(expected);
    expect(await said(one)).toEqual(expected);
  });

  // K12: a worker.
  it('a worker talks, loses its server and comes back', async () => {
    const stdin = { contents: WORKER, resolveDir: import.meta.dirname };
    const bundle = await build({ stdin, bundle: true, write: false, format: 'iife' });
    const page = await open();
    await page.evaluate(
      ({ code, ...options }) => {
        const worker = new Worker(URL.createObjectURL(new Blob([code])));
        const heard: unknown[] = [];
        worker.onmessage = ({ data }) => heard.push(data);
        worker.postMessage(options);
        Object.assign(window, { heard });
      },
      { code: bundle.outputFiles[0]?.text ?? '', url: server.url(''), token: token('eve') },
    );
    const heard = () => page.evaluate(() => (window as unknown as { heard: unknown[] }).heard);
    await expect.poll(heard, { timeout: 20_000 }).toEqual(['from a worker']);
    await server.kill();
    await server.restart();
    await expect.poll(heard, { timeout: 20_000 }).toEqual(['from a worker', 'while away']);
  });

  it('after the last attempt it falls back, says why, and is brought back by hand', async () => {
    const page = await open({ immediate: '1', wsDebug: '1' });
    await shows(page, '#status', /^Connected$/);
    await server.kill();
    await shows(page, '#status', 'Fallback');
    expect(await page.textContent('#reason')).toBe('no connection to the server');
    await shows(page, 'aside', 'failed, network: no connection to the server');
    if (PICTURES) await page.screenshot({ path: `${PICTURES}/panel-fallback.png` });
    await server.restart();
    await page.click('text=Connect now');
    await shows(page, '#status', /^Connected$/);
  });

  it('in fallback it is brought back by the network, too', async () => {
    const page = await open({ immediate: '1' });
    await shows(page, '#status', /^Connected$/);
    await server.kill();
    await shows(page, '#status', 'Fallback');
    await server.restart();
    await page.context().setOffline(true);
    await page.context().setOffline(false);
    await shows(page, '#status', /^Connected$/);
  });
});
