// A client of the example `axum_app`: its own message type, its rights, its rule for what is said.
//
//   node axum_app.mjs --url ws://127.0.0.1:8000/ws/v2/connect --token …
//
// Prints every answer as a JSON line; ends with 0 when each command has one.

import { address, connect, fail, options, print } from "./client.mjs";

const { url, token, timeout } = options({
  url: "ws://127.0.0.1:8000/ws/v2/connect",
  token: "",
  timeout: 10,
});

setTimeout(() => fail(`not all answers within ${timeout} s`), timeout * 1000);

const commands = [
  { type: "dice.roll", id: 1, sides: 6 },
  { type: "dice.roll", id: 2, sides: 1 },
  { type: "subscribe", id: 3, room: "guild:owls" },
  { type: "subscribe", id: 4, room: "guild:bats" },
  { type: "publish", id: 5, room: "guild:owls", data: "good evening" },
  { type: "publish", id: 6, room: "guild:owls", data: "GOOD EVENING" },
];
const open = new Set(commands.map(({ id }) => id));

const connection = connect(address(url, { token }), {
  frame(value) {
    if (value.type === "hello") for (const command of commands) connection.send(command);
    if (!open.delete(value.id)) return;
    print(value);
    if (open.size === 0) connection.close();
  },
  closed(code, reason) {
    if (code !== 1000) fail(`closed with ${code} ${reason}`);
    process.exit(0);
  },
});
