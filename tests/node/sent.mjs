// Loaded in front of every script of this folder: notes what is sent over `ws`, Node's own WebSocket and `fetch`,
// whoever sends it, and writes it down at the end, for the test that looks for it in the server's log.
//
//   FOREIGN_SENT=FILE node --import ./sent.mjs script.mjs
//
// The file gets a JSON string a line, one for each text. It must never change what is sent.

import { writeFileSync } from "node:fs";
import WebSocket from "ws";

const file = process.env.FOREIGN_SENT;
const sent = new Set();
const pieces = new WeakMap();

function note(socket, data, options) {
  const text = Buffer.concat([pieces.get(socket) ?? Buffer.alloc(0), Buffer.from(data)]);
  if (options?.fin === false) {
    pieces.set(socket, text);
  } else {
    pieces.delete(socket);
    sent.add(text.toString());
  }
}

for (const { prototype } of [WebSocket, globalThis.WebSocket].filter((kind) => kind !== undefined)) {
  const { send } = prototype;
  prototype.send = function noted(...words) {
    note(this, ...words);
    return send.apply(this, words);
  };
}

const { fetch } = globalThis;
globalThis.fetch = (resource, options) => {
  if (typeof options?.body === "string") sent.add(options.body);
  return fetch(resource, options);
};

process.on("exit", () => {
  if (file !== undefined) writeFileSync(file, [...sent].map((text) => `${JSON.stringify(text)}\n`).join(""));
});
