// Which of six kinds the end of a connection, or of an attempt at one, is, and how to say it.
//
// It must never decide whether to come back: that is the close code's alone (`shouldReconnect`).

/** The documented classes of failures. */
export type WSErrorClass = 'network' | 'handshake' | 'server_error' | 'abnormal' | 'timeout' | 'unknown';

/** How a connection, or an attempt at one, ended. */
export interface Failure {
  /** The close code; 1006 where there was no close frame. */
  code: number;
  /** The close frame's reason, or what else was said. */
  reason: string;
  /** Whether the socket had been open. */
  opened: boolean;
  /** Which wait was too long, if one was. */
  timeout?: 'connect' | 'heartbeat' | null;
}

const TIMEOUT = /time[d ]*out/i;
/** What Node's clients say of an upgrade that was refused; browsers say nothing. */
const HTTP = /(?:response|status)\D*([45])\d\d\b/i;

/** Each range of close codes with its class; the first that fits counts. */
const CLASSES: readonly (readonly [number, number, WSErrorClass])[] = [
  [1001, 1001, 'abnormal'],
  [1002, 1003, 'handshake'],
  [1006, 1006, 'abnormal'],
  [1007, 1010, 'handshake'],
  [1011, 1014, 'server_error'],
  [1015, 1015, 'network'],
  [3002, 3002, 'timeout'],
  [3004, 3004, 'handshake'],
  [3000, 3499, 'server_error'],
  [3500, 3999, 'handshake'],
  [4400, 4499, 'handshake'],
  [4500, 4599, 'server_error'],
];

/** The class of a failure. */
export function classify(failure: Failure): WSErrorClass {
  if (failure.timeout) return 'timeout';
  if (failure.code === 1006 && !failure.opened) {
    const status = HTTP.exec(failure.reason)?.[1];
    if (status) return status === '4' ? 'handshake' : 'server_error';
    return TIMEOUT.test(failure.reason) ? 'timeout' : 'network';
  }
  return CLASSES.find(([first, last]) => first <= failure.code && failure.code <= last)?.[2] ?? 'unknown';
}

/** A failure in words, for people. */
export function describe(failure: Failure): string {
  if (failure.timeout === 'connect') return 'network timeout';
  if (failure.timeout) return 'heartbeat timeout';
  if (failure.code !== 1006) return `closed with ${failure.code}${failure.reason && ` ${failure.reason}`}`;
  return failure.reason || (failure.opened ? 'connection lost' : 'no connection to the server');
}
