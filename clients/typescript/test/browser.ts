// A browser, and the small application of e2e/ built as a page's bundler would and served from this process.
// It must never reach the network: the page and the server are on this machine.

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, chromium, type Page, type WebSocket } from 'playwright-core';
import { build } from 'vite';

export const home = fileURLToPath(new URL('..', import.meta.url));
/** Debian's, as tests/run installs it. */
export const CHROMIUM = '/usr/bin/chromium';
export const HAS_CHROMIUM = existsSync(CHROMIUM);
const ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };
const source = (path: string): string => join(home, 'src', path);
const entry = (name: string, path: string) => ({
  find: new RegExp(`^@roomkeeper/client${name}$`),
  replacement: source(path),
});
/** The package's entries, for a bundler. */
export const ALIAS = [
  entry('', 'index.ts'),
  entry('/react', 'react/index.ts'),
  entry('/diagnostics', 'diagnostics/index.tsx'),
];

/** Starts a browser. */
export const launch = (): Promise<Browser> => chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });

/** A page of the application. */
export interface Opened {
  page: Page;
  errors: string[];
  sockets: WebSocket[];
}

/** The built application, and a browser to open it in. */
export class Application {
  #folder = mkdtempSync(join(tmpdir(), 'roomkeeper-e2e-'));
  #web: Server | null = null;
  #browser: Browser | null = null;
  #origin = '';

  /** Serves it, and brings a browser. */
  static async start(): Promise<Application> {
    const application = await Application.serve();
    application.#browser = await launch();
    return application;
  }

  /** Serves it for a browser that somebody else brings. */
  static async serve(): Promise<Application> {
    const application = new Application();
    await application.#build();
    await application.#serve();
    return application;
  }

  /** Its address. */
  address(query: Record<string, string>): string {
    return `${this.#origin}/?${new URLSearchParams(query)}`;
  }

  async #build(): Promise<void> {
    await build({
      root: join(home, 'e2e'),
      configFile: false,
      logLevel: 'warn',
      base: './',
      resolve: { alias: ALIAS },
      build: { outDir: this.#folder, emptyOutDir: true },
    });
  }

  async #serve(): Promise<void> {
    const web = createServer((request, response) => {
      const path = normalize(new URL(request.url ?? '/', 'http://h').pathname).replace(/\/$/, '/index.html');
      const file = join(this.#folder, path);
      if (!existsSync(file)) return response.writeHead(404).end();
      response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'text/plain' }).end(readFileSync(file));
    });
    this.#web = web;
    await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
    this.#origin = `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
  }

  /**
   * Opens it in a window of its own, with its own storage; or as a tab beside another page, with which it shares that.
   * What the page throws is collected, and so are its sockets.
   */
  async open(query: Record<string, string>, freshToken?: () => string, beside?: Page): Promise<Opened> {
    if (!this.#browser) throw new Error('it has not been started');
    const context = beside?.context() ?? (await this.#browser.newContext({ viewport: { width: 1000, height: 900 } }));
    const page = await context.newPage();
    const errors: string[] = [];
    const sockets: WebSocket[] = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('websocket', (socket) => sockets.push(socket));
    if (freshToken) await page.exposeFunction('freshToken', freshToken);
    await page.goto(this.address(query));
    return { page, errors, sockets };
  }

  async end(): Promise<void> {
    await this.#browser?.close();
    this.#web?.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
