// What the page says about the connection: addresses and switches of the build, the client's id in local
// storage, and whether the diagnostics were asked for.
//
// It must never fail: storage may be forbidden, and there may be no page at all.

type Variables = Readonly<Record<string, unknown>>;

/** Where the client's id is kept. */
export const CLIENT_ID_KEY = 'ws_client_id';
/** The address where nothing else is said. */
export const DEFAULT_URL = 'ws://localhost:8000';

interface Page {
  __A1_WS_DEBUG?: unknown;
  process?: { env?: Variables };
}

const page = globalThis as Page;
let given: Variables = {};

/** Hands the build's variables over where the bundler does not reach into packages: `configure(import.meta.env)`. */
export function configure(variables: Variables): void {
  given = variables;
}

/** A variable of the build (`import.meta.env`) or of the process. */
function variable(name: string): unknown {
  const built = (import.meta as { env?: Variables }).env;
  return given[name] ?? built?.[name] ?? page.process?.env?.[name];
}

/** `VITE_WS_URL`, or the address of a server on this machine. */
export function configuredUrl(): string {
  const url = variable('VITE_WS_URL');
  return typeof url === 'string' && url ? url : DEFAULT_URL;
}

/** False when `VITE_WEBSOCKET_ENABLED` says so. */
export function isEnabled(): boolean {
  const enabled = variable('VITE_WEBSOCKET_ENABLED');
  return enabled !== false && !/^(false|0|off|no)$/i.test(String(enabled ?? ''));
}

/** Whether this is a build for development. */
export function isDevelopment(): boolean {
  return variable('DEV') === true || variable('MODE') === 'development' || variable('NODE_ENV') === 'development';
}

/** Whether the page asks for diagnostics: `?wsDebug=1` or `window.__A1_WS_DEBUG = true`. */
export function isDebugging(): boolean {
  if (page.__A1_WS_DEBUG === true) return true;
  try {
    return new URLSearchParams(globalThis.location.search).get('wsDebug') === '1';
  } catch {
    return false;
  }
}

let fresh: string | undefined;

/** The id of this browser: from local storage, made up and kept there the first time. */
export function clientId(): string {
  fresh ??= uuid();
  try {
    const kept = globalThis.localStorage.getItem(CLIENT_ID_KEY);
    if (kept && /^[\w.~-]{1,128}$/.test(kept)) return kept;
    globalThis.localStorage.setItem(CLIENT_ID_KEY, fresh);
  } catch {
    // Without storage each load is a client of its own.
  }
  return fresh;
}

/** A random UUID; pages that came without TLS have no `randomUUID`. */
function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'))
    .join('')
    .replace(/(.{8})(.{4}).(.{3}).(.{3})(.{12})/, '$1-$2-4$3-a$4-$5');
}
