// A client of /ws as document 004 has it: refused over HTTP without a token; with one a welcome, the list of
// users, plain text, JSON, a ping, a type that nobody handles.
//
//   node document_004.mjs --url ws://127.0.0.1:8000/ws --token eyJ…

import WebSocket from "ws";
import { address, fail, options } from "./client.mjs";

const { url, token, timeout } = options({ url: "ws://127.0.0.1:8000/ws", token: "", timeout: 10 });
setTimeout(() => fail(`not done within ${timeout} s`), timeout * 1000);

/** What is said behind each type that comes. */
const answers = {
  user_list: () => ["plain text", JSON.stringify({ type: "stats", id: 1 })],
  chat: () => [JSON.stringify({ type: "ping" })],
  pong: () => [JSON.stringify({ type: "custom_message", content: "x" })],
};

function talk() {
  return new Promise((resolve) => {
    const socket = new WebSocket(address(url, { token }));
    const told = [];
    socket.on("message", (data) => {
      const { type, message, code } = JSON.parse(String(data));
      // The numbers come when they come; what others say is what counts.
      if (type === "stats") return;
      told.push(type, ...[type === "chat" ? message : undefined, code].filter((value) => value !== undefined));
      for (const text of answers[type]?.() ?? []) socket.send(text);
      if (type === "error") socket.close(1000);
    });
    socket.on("close", () => resolve(told.join(" ")));
  });
}

function refused() {
  return new Promise((resolve) => {
    const socket = new WebSocket(address(url, {}));
    socket.on("unexpected-response", (_, response) => resolve(`refused ${response.statusCode}`));
    socket.on("error", () => {});
  });
}

console.log(await talk());
console.log(await refused());
process.exit(0);
