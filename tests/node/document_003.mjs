// A client of /ws/client as document 003 has it: the handshake, ping, status, a type of its own, and the
// codes for parameters that are wrong.
//
//   node document_003.mjs --url ws://127.0.0.1:8000/ws/client

import WebSocket from "ws";
import { address, fail, options } from "./client.mjs";

const { url, timeout } = options({ url: "ws://127.0.0.1:8000/ws/client", timeout: 10 });
setTimeout(() => fail(`not done within ${timeout} s`), timeout * 1000);

/** The types that come, in order, until `wanted` have; `say` is sent behind the first. */
function talk(parameters, say, wanted) {
  return new Promise((resolve) => {
    const socket = new WebSocket(address(url, parameters));
    const told = [];
    socket.on("message", (data) => {
      const { type, accepted_version, code } = JSON.parse(String(data));
      told.push(type, ...[accepted_version, code].filter((value) => value !== undefined && type !== "status"));
      if (told.length === 2) for (const value of say) socket.send(JSON.stringify(value));
      if (told.length === wanted) socket.close(1000);
    });
    socket.on("close", (code) => resolve(wanted ? told.join(" ") : `closed ${code}`));
  });
}

const timestamp = new Date().toISOString();
const client_id = "5f0c1a52-2b1e-4b0f-9d7e-0c8a5d1f3e11";
const said = [
  { type: "ping", timestamp },
  { type: "status", timestamp },
  { type: "test_message", timestamp, payload: { test: "data of a test" } },
];
console.log(await talk({ client_id, version: 1, role: "frontend" }, said, 6));
console.log(await talk({ client_id, version: 2 }, [], 0));
console.log(await talk({ client_id, role: "root" }, [], 0));
console.log(await talk({}, [], 0));
process.exit(0);
