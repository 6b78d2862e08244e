// What the scripts beside this file share: options, and one connection that speaks protocol v2.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import WebSocket from "ws";

/** What `--ca` of every script names: the certificate to trust for wss://. */
let ca;

/** Command line options, every one `--name value`; numbers where the default is a number. */
export function options(defaults) {
  const known = ["ca", ...Object.keys(defaults)].map((name) => [name, { type: "string" }]);
  const { values } = parseArgs({ options: Object.fromEntries(known) });
  if (values.ca !== undefined) ca = readFileSync(values.ca);
  delete values.ca;
  const result = { ...defaults };
  for (const [name, text] of Object.entries(values)) {
    result[name] = typeof defaults[name] === "number" ? Number(text) : text;
    if (Number.isNaN(result[name])) throw new Error(`--${name} wants a number, not ${text}`);
  }
  return result;
}

/** The JSON values of one inbound message: one per line. */
export function frames(data) {
  return String(data)
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => ({ ...JSON.parse(line), raw: line }));
}

/** Adds query parameters to an address. */
export function address(url, parameters) {
  const result = new URL(url);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "") result.searchParams.set(name, value);
  }
  return result.href;
}

/**
 * Connects and calls back: `frame(value)` per JSON value, `closed(code, reason)` exactly once.
 * A failed connect is a close with 1006. The server's `ping` is answered here.
 */
export function connect(url, { opened = () => {}, frame, closed }) {
  const socket = new WebSocket(url, { perMessageDeflate: false, handshakeTimeout: 10_000, ca });
  socket.on("open", opened);
  socket.on("message", (data) => {
    for (const value of frames(data)) {
      if (value.type === "ping") socket.send(JSON.stringify({ type: "pong" }));
      frame(value);
    }
  });
  // `close` follows every `error`.
  socket.on("error", () => {});
  socket.on("close", (code, reason) => closed(code, String(reason)));
  return {
    send: (value) => socket.send(JSON.stringify(value)),
    close: () => socket.close(1000),
    drop: () => socket.terminate(),
    socket,
  };
}

/** One JSON value on one line of standard output, without our own `raw`. */
export function print({ raw, ...value }) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Ends the script with words on standard error. */
export function fail(words) {
  console.error(words);
  process.exit(1);
}
