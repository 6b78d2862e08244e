// Renders components into a page of happy-dom, and lets virtual time pass for them.
// It must never leave a component mounted for the next test.

import { act, type ReactNode, StrictMode } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { afterEach, beforeEach, vi } from 'vitest';
import type { FakeServer } from '../src/testing/index.js';

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

const roots: Root[] = [];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] });
});
afterEach(async () => {
  for (const root of roots.splice(0)) await act(async () => root.unmount());
  vi.runOnlyPendingTimers();
  vi.useRealTimers();
  document.body.innerHTML = '';
});

export async function mount(content: ReactNode, isStrict = true) {
  const host = document.body.appendChild(document.createElement('div'));
  const root = createRoot(host);
  roots.push(root);
  const render = (next: ReactNode) => act(async () => root.render(isStrict ? <StrictMode>{next}</StrictMode> : next));
  await render(content);
  return { host, root, render, unmount: () => act(async () => root.unmount()) };
}

/** Lets time pass at the server, and on the page. */
export async function pass(server: FakeServer, ms: number): Promise<void> {
  await act(async () => {
    vi.advanceTimersByTime(1);
    await server.clock.advance(ms);
    vi.advanceTimersByTime(ms);
  });
}

export async function press(name: string): Promise<void> {
  const button = [...document.querySelectorAll('button')].find(({ textContent }) => textContent === name);
  if (!button) throw new Error(`there is no button ${name}`);
  await act(async () => button.click());
}
