// Joins two rooms, loses its connection, and comes back with its ticket and its positions in one
// `connect`, without the token. Prints what `hello` brought back.
//
//   node resume.mjs --url ws://127.0.0.1:8000/ws/v2/connect --token <jwt>

import { address, connect, fail, options } from "./client.mjs";

const { url, token, timeout } = options({
  url: "ws://127.0.0.1:8000/ws/v2/connect",
  token: "",
  timeout: 20,
});
const rooms = ["chat:one", "chat:two"];

setTimeout(() => fail(`nothing came back within ${timeout} s`), timeout * 1000);

const positions = new Map();
let session = null;

const first = connect(address(url, { token }), {
  frame(value) {
    if (value.type === "hello") {
      session = value.session;
      rooms.forEach((room, id) => first.send({ type: "subscribe", id, room }));
    }
    if (value.type === "subscribed") {
      positions.set(value.room, { room: value.room, epoch: value.epoch, offset: value.offset });
      if (positions.size === rooms.length) first.drop();
    }
    if (value.type === "error") fail(`refused: ${value.raw}`);
  },
  closed: publish,
});

function publish() {
  const messages = [["chat:one", 1], ["chat:one", 2], ["chat:two", "missed meanwhile"]];
  let acknowledged = 0;
  const other = connect(address(url, { token }), {
    frame(value) {
      if (value.type === "hello") {
        messages.forEach(([room, data], id) => other.send({ type: "publish", id, room, data }));
      }
      if (value.type === "ack" && ++acknowledged === messages.length) other.close();
      if (value.type === "error") fail(`refused: ${value.raw}`);
    },
    closed: comeBack,
  });
}

function comeBack() {
  const second = connect(url, {
    opened() {
      second.send({ type: "connect", id: 1, session, resume: [...positions.values()] });
    },
    frame(value) {
      if (value.type !== "hello") fail(`no hello but ${value.raw}`);
      console.log(JSON.stringify(value.resumed));
      second.close();
    },
    closed(code, reason) {
      if (code !== 1000) fail(`closed with ${code} ${reason}`);
      process.exit(0);
    },
  });
}
