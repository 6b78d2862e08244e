// A reader that wants some messages only: subscribes, publishes a list, and prints what it gets.
//
//   node selective.mjs --url ws://127.0.0.1:8000/ws/v2/connect \
//     --subscribe '[{"room":"public:news","filter":{"eq":{"lang":"de"}}}]' \
//     --publish '[{"room":"public:news","data":1,"tags":{"lang":"de"}}]' --count 1
//
// Prints every frame as a JSON line; ends with 0 once as many messages as `--count` says have come.

import { address, connect, fail, options, print } from "./client.mjs";

const { url, token, subscribe, publish, count, timeout } = options({
  url: "ws://127.0.0.1:8000/ws/v2/connect",
  token: "",
  subscribe: "[]",
  publish: "[]",
  count: 1,
  timeout: 10,
});

setTimeout(() => fail(`not ${count} messages within ${timeout} s`), timeout * 1000);

const wanted = JSON.parse(subscribe);
let subscribed = 0;
let messages = 0;

const connection = connect(address(url, { token }), {
  frame(value) {
    print(value);
    if (value.type === "error") fail(`refused: ${value.raw}`);
    if (value.type === "hello") {
      wanted.forEach((what, index) => connection.send({ type: "subscribe", id: index + 1, ...what }));
    }
    if (value.type === "subscribed" && ++subscribed === wanted.length) {
      for (const what of JSON.parse(publish)) connection.send({ type: "publish", ...what });
    }
    if (value.type === "message" && ++messages === count) connection.close();
  },
  closed(code, reason) {
    if (code !== 1000) fail(`closed with ${code} ${reason}`);
    process.exit(0);
  },
});
