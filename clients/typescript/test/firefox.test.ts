// One story of the browser tests in Firefox, over WebDriver BiDi, against the built server.
// It must never install anything: it runs where ROOMKEEPER_FIREFOX names the browser and ROOMKEEPER_PUPPETEER a puppeteer-core.

import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { BINARY, Binary, token } from './binary.js';
import { Application } from './browser.js';

const FIREFOX = process.env.ROOMKEEPER_FIREFOX;
const PUPPETEER = process.env.ROOMKEEPER_PUPPETEER;

/** What is used of puppeteer-core, which is no dependency. */
interface Page {
  goto(url: string): Promise<unknown>;
  on(name: 'pageerror', listener: (error: unknown) => void): unknown;
  exposeFunction(name: string, body: () => string): Promise<unknown>;
  waitForFunction(body: string): Promise<unknown>;
  evaluate(body: string): Promise<unknown>;
  type(selector: string, text: string): Promise<unknown>;
  keyboard: { press(key: string): Promise<unknown> };
  screenshot(options: { path: string }): Promise<unknown>;
}
interface Puppeteer {
  launch(options: object): Promise<{ newPage(): Promise<Page>; version(): Promise<string>; close(): Promise<void> }>;
}

it.skipIf(!BINARY || !FIREFOX || !PUPPETEER)(
  'in Firefox a server that is killed costs no message',
  {
    timeout: 120_000,
  },
  async () => {
    const { default: puppeteer } = (await import(pathToFileURL(PUPPETEER as string).href)) as { default: Puppeteer };
    const [server, application] = [await Binary.start(), await Application.serve()];
    const browser = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX, headless: true });
    try {
      const page = await browser.newPage();
      const errors: string[] = [];
      page.on('pageerror', (error) => errors.push(String(error)));
      await page.exposeFunction('freshToken', () => token('fay'));
      await page.goto(application.address({ server: server.url(''), user: 'fay', room: 'chat:lobby', wsDebug: '1' }));
      const shows = (selector: string, text: string) =>
        page.waitForFunction(`document.querySelector('${selector}')?.textContent.includes('${text}')`);
      const say = async (text: string) => {
        await page.type('#say', text);
        await page.keyboard.press('Enter');
      };
      await shows('#chat-state', 'joined');
      await shows('#status', 'Connected');
      await shows('#members', 'fay');
      await say('before');
      await shows('#messages', 'before');
      await server.kill();
      await shows('aside', 'abnormal: connection lost');
      await say('while away');
      await server.restart();
      await shows('#messages', 'while away');
      await shows('#status', 'Connected');
      const said = `[...document.querySelectorAll('#messages li')].map(({ textContent }) => textContent)`;
      expect([await page.evaluate(said), errors]).toEqual([['before', 'while away'], []]);
      const pictures = process.env.ROOMKEEPER_PICTURES;
      if (pictures) await page.screenshot({ path: `${pictures}/firefox.png` });
    } finally {
      await browser.close();
      await application.end();
      await server.end();
    }
  },
);
