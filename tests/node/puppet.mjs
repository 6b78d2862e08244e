// A client that does what it is told: one JSON object a line comes in, one for each thing that happens goes
// out. A test plays several people on several devices with it.
//
//   {"open": "phone", "path": "/ws/chat", "token": "…"}     {"say": "phone", "text": "…"}     {"close": "phone"}
//   {"from": "phone", "opened": true}   {"from": "phone", "text": "…"}   {"from": "phone", "closed": 1006}
//
// The server's `ping` is answered here and not told.

import { createInterface } from "node:readline";
import WebSocket from "ws";
import { address, options } from "./client.mjs";

const { url } = options({ url: "ws://127.0.0.1:8000" });
const sockets = new Map();
const tell = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

function open(name, path, token) {
  const socket = new WebSocket(address(url + path, { token }), { perMessageDeflate: false });
  sockets.set(name, socket);
  socket.on("open", () => tell({ from: name, opened: true }));
  socket.on("message", (data) => {
    const text = String(data);
    if (JSON.parse(text).type === "ping") socket.send(JSON.stringify({ type: "pong" }));
    else tell({ from: name, text });
  });
  socket.on("error", () => {});
  socket.on("close", (code) => tell({ from: name, closed: code }));
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.open) open(order.open, order.path, order.token);
  else if (order.say) sockets.get(order.say).send(order.text);
  else if (order.close) sockets.get(order.close).close(1000);
}
process.exit(0);
