// The first five minutes of a newcomer: connect, subscribe, publish, see the own message.
//
//   node first_message.mjs --url ws://127.0.0.1:8000/ws/v2/connect --room public:hello --text hi
//
// Prints every frame as a JSON line; ends with 0 when the own message has come.

import { address, connect, fail, options, print } from "./client.mjs";

const { url, room, text, token, timeout } = options({
  url: "ws://127.0.0.1:8000/ws/v2/connect",
  room: "public:hello",
  text: "hello from node",
  token: "",
  timeout: 10,
});

setTimeout(() => fail(`no message within ${timeout} s`), timeout * 1000);

const connection = connect(address(url, { token }), {
  frame(value) {
    print(value);
    if (value.type === "hello") connection.send({ type: "subscribe", id: 1, room });
    if (value.type === "subscribed") {
      connection.send({ type: "publish", id: 2, room, data: { text }, msg_id: "first" });
    }
    if (value.type === "error") fail(`refused: ${value.raw}`);
    if (value.type === "message" && value.data?.text === text) {
      connection.close();
    }
  },
  closed(code, reason) {
    if (code !== 1000) fail(`closed with ${code} ${reason}`);
    process.exit(0);
  },
});
