// Hot reload in a real browser: Vite's own server serves the application, its files are edited while it runs.
// It must never edit a file of the checkout, nor wait for time to pass.

import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import react from '@vitejs/plugin-react';
import type { Browser, Page } from 'playwright-core';
import { createServer, type ViteDevServer } from 'vite';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { BINARY, Binary } from './binary.js';
import { ALIAS, HAS_CHROMIUM, home, launch } from './browser.js';

/** What the packed application has of the package. */
const PACKED = ['@roomkeeper/client/react', '@roomkeeper/client/diagnostics'];
/** An application that says nothing of its environment to the package. */
const UNCONFIGURED = `
import { WebSocketDiagnosticsWrapper } from '@roomkeeper/client/diagnostics';
import { useWebSocketConnection } from '@roomkeeper/client/react';
import { createRoot } from 'react-dom/client';
function App() {
  const { state } = useWebSocketConnection();
  return <><p id="url">{state.url}</p><p id="phase">{state.phase}</p><p id="reason">{state.fallback_reason}</p></>;
}
createRoot(document.getElementById('root')).render(<><App /><WebSocketDiagnosticsWrapper /></>);
`;

/** An application in a folder of its own, served for development. */
class Development {
  readonly folder = realpathSync(mkdtempSync(join(tmpdir(), 'roomkeeper-hot-')));
  #vite: ViteDevServer | null = null;

  /** With the package's sources, or as it is packed and installed. */
  constructor(
    fill: (folder: string) => void,
    readonly isPacked = false,
  ) {
    const modules = join(this.folder, 'node_modules');
    if (isPacked) this.#install(modules);
    else symlinkSync(join(home, 'node_modules'), modules);
    fill(this.folder);
  }

  #install(modules: string): void {
    const client = join(modules, '@roomkeeper', 'client');
    mkdirSync(client, { recursive: true });
    for (const name of ['react', 'react-dom']) symlinkSync(join(home, 'node_modules', name), join(modules, name));
    const words = ['pack', '--json', '--pack-destination', this.folder];
    const said = execFileSync('npm', words, { cwd: home, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
    const [{ filename }] = JSON.parse(said.slice(said.indexOf('[\n')));
    execFileSync('tar', ['-xzf', join(this.folder, filename), '-C', client, '--strip-components', '1']);
  }

  async start(): Promise<string> {
    this.#vite = await createServer({
      root: this.folder,
      configFile: false,
      logLevel: 'warn',
      cacheDir: join(this.folder, '.vite'),
      plugins: [react()],
      resolve: { alias: this.isPacked ? [] : ALIAS },
      // Found by a crawl it would be bundled late, and the page would be loaded again for it.
      optimizeDeps: {
        include: ['react', 'react-dom/client', 'react/jsx-dev-runtime', ...(this.isPacked ? PACKED : [])],
      },
      server: { host: '127.0.0.1', port: 0, fs: { allow: [this.folder, home] } },
    });
    await this.#vite.listen();
    const address = this.#vite.httpServer?.address();
    if (!address || typeof address === 'string') throw new Error('it does not listen');
    return `http://127.0.0.1:${address.port}`;
  }

  edit(file: string, from: string, to: string): void {
    const path = join(this.folder, file);
    const text = readFileSync(path, 'utf8');
    if (!text.includes(from)) throw new Error(`${file} has no ${from}`);
    writeFileSync(path, text.replace(from, to));
  }

  async end(): Promise<void> {
    await this.#vite?.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** What went over a page's sockets to the server. */
interface Wire {
  url: string;
  isClosed: boolean;
  sent: { type: string; room?: string }[];
}

describe.skipIf(!BINARY || !HAS_CHROMIUM)('under hot reload', { timeout: 60_000 }, () => {
  let server: Binary;
  let browser: Browser;
  let development: Development;
  const errors: string[] = [];

  beforeAll(async () => {
    [server, browser] = await Promise.all([Binary.start(), launch()]);
  }, 60_000);
  afterEach(async () => {
    for (const context of browser.contexts()) await context.close();
    await development.end();
    expect(errors.splice(0)).toEqual([]);
  });
  afterAll(async () => {
    await browser?.close();
    await server?.end();
  });

  async function open(path: string): Promise<{ page: Page; wires: Wire[] }> {
    const origin = await development.start();
    const page = await (await browser.newContext()).newPage();
    page.on('pageerror', (error) => errors.push(String(error)));
    const wires: Wire[] = [];
    page.on('websocket', (socket) => {
      if (!socket.url().startsWith(server.url(''))) return;
      const wire: Wire = { url: socket.url(), isClosed: false, sent: [] };
      wires.push(wire);
      socket.on('framesent', ({ payload }) => void wire.sent.push(JSON.parse(String(payload))));
      socket.on('close', () => {
        wire.isClosed = true;
      });
    });
    await page.goto(origin + path);
    return { page, wires };
  }

  const shows = (page: Page, selector: string, text: string | RegExp) =>
    page.locator(selector, { hasText: text }).waitFor({ timeout: 30_000 });
  /** Of the commands that were sent, those that join and leave. */
  const moves = (wires: Wire[]) =>
    wires.flatMap(({ sent }) => sent.map(({ type }) => type)).filter((type) => /subscribe/.test(type));
  /** The page that was opened is still there: it was not loaded again. */
  const mark = (page: Page) => page.evaluate(() => void Object.assign(window, { mark: 1 }));
  const isMarked = (page: Page) => page.evaluate(() => 'mark' in window);

  it('the sockets stay, the room stays joined, and nothing comes twice', async () => {
    development = new Development((folder) => cpSync(join(home, 'e2e'), folder, { recursive: true }));
    const { page, wires } = await open(`/?server=${encodeURIComponent(server.url(''))}&wsDebug=1`);
    await shows(page, '#chat-state', 'joined');
    await shows(page, '#status', /^Connected$/);
    await mark(page);
    const say = async (text: string) => {
      await page.fill('#say', text);
      await page.press('#say', 'Enter');
      await shows(page, '#messages', text);
    };
    const said = () => page.locator('#messages li').allTextContents();
    await say('before');
    await page.fill('#say', 'half a sente');
    // What a component shows; then what it shows and keeps, which mounts it anew; then the component of document 003.
    development.edit('chat.tsx', '<h2>Chat</h2>', '<h2>Chat, edited</h2>');
    await shows(page, 'h2', 'Chat, edited');
    expect(await page.inputValue('#say')).toBe('half a sente');
    await say('between');
    expect(await said()).toEqual(['before', 'between']);
    development.edit(
      'chat.tsx',
      '  const client = useRoomkeeper();\n',
      '  const client = useRoomkeeper();\n  useState(0);\n',
    );
    development.edit('chat.tsx', 'Chat, edited', 'Chat, mounted anew');
    await shows(page, 'h2', 'Chat, mounted anew');
    development.edit('documented.tsx', '<h2>WebSocket</h2>', '<h2>Documented, edited</h2>');
    await shows(page, 'h2', 'Documented, edited');
    await say('after');
    expect((await said()).filter((text) => text === 'after')).toEqual(['after']);
    await page.click('text=Send Message');
    await expect
      .poll(() => wires.flatMap(({ sent }) => sent).filter(({ type }) => type === 'test_message').length)
      .toBe(1);
    expect(await page.textContent('#chat-state')).toBe('joined');
    expect(await page.locator('aside').count()).toBe(1);
    expect(wires.map(({ url, isClosed }) => [new URL(url).pathname, isClosed]).sort()).toEqual([
      ['/ws/client', false],
      ['/ws/v2/connect', false],
    ]);
    expect(moves(wires)).toEqual(['subscribe']);
    expect(await isMarked(page)).toBe(true);
  });

  it.each([
    ['is where the build says, and the panel comes in development', 'true', /^open$/],
    ['is off where the build says so', 'false', /^fallback$/],
  ])('the packed package reads the variables of the build by itself: the connection %s', async (_, enabled, phase) => {
    development = new Development((folder) => {
      writeFileSync(join(folder, 'main.tsx'), UNCONFIGURED);
      writeFileSync(join(folder, '.env'), `VITE_WS_URL=${server.url('')}\nVITE_WEBSOCKET_ENABLED=${enabled}\n`);
      const html = '<div id="root"></div><script type="module" src="/main.tsx"></script>';
      writeFileSync(join(folder, 'index.html'), html);
    }, true);
    const { page, wires } = await open('/');
    await shows(page, '#phase', phase);
    expect(await page.textContent('#url')).toMatch(`${server.url('')}/ws/client?client_id=`);
    if (enabled === 'false') {
      expect(await page.textContent('#reason')).toBe('WebSocket is disabled (VITE_WEBSOCKET_ENABLED)');
    }
    expect(wires.map(({ isClosed }) => isClosed)).toEqual(enabled === 'true' ? [false] : []);
    await page.evaluate(() => {
      dispatchEvent(new KeyboardEvent('keydown', { ctrlKey: true, shiftKey: true, key: 'W' }));
    });
    await shows(page, 'aside', phase.source.includes('open') ? 'WebSocket: open' : 'WebSocket: fallback');
  });

  it('the page of the README keeps its client when its file is edited', async () => {
    const readme = readFileSync(join(home, 'README.md'), 'utf8');
    const snippet = /`src\/App\.tsx`:\n\n```tsx\n([\s\S]*?)```/.exec(readme)?.[1] ?? '';
    expect(snippet).toContain('ws://localhost:8000');
    development = new Development((folder) => {
      mkdirSync(join(folder, 'src'));
      writeFileSync(join(folder, 'src', 'App.tsx'), snippet.replace('ws://localhost:8000', server.url('')));
      // As Vite's own template has them.
      const main = [
        "import { StrictMode } from 'react'",
        "import { createRoot } from 'react-dom/client'",
        "import App from './App.tsx'",
        "createRoot(document.getElementById('root')!).render(<StrictMode><App /></StrictMode>)",
      ];
      writeFileSync(join(folder, 'src', 'main.tsx'), main.join('\n'));
      const html = '<div id="root"></div><script type="module" src="/src/main.tsx"></script>';
      writeFileSync(join(folder, 'index.html'), html);
    });
    const { page, wires } = await open('/');
    await shows(page, 'p', '1 here');
    await mark(page);
    for (const [n, text] of ['one', 'two', 'three'].entries()) {
      development.edit('src/App.tsx', n === 0 ? ' here`' : `, edit ${n}\``, `, edit ${n + 1}\``);
      await shows(page, 'p', `1, edit ${n + 1}`);
      await page.fill('input', text);
      await page.press('input', 'Enter');
      await shows(page, 'li', text);
    }
    expect(await page.locator('li').allTextContents()).toEqual(['one', 'two', 'three']);
    expect(wires.map(({ isClosed }) => isClosed)).toEqual([false]);
    expect(moves(wires)).toEqual(['subscribe']);
    expect(await isMarked(page)).toBe(true);
  });
});
