// Publishes data of many shapes and sizes, whole and in fragments, and expects every byte back.
//
//   node echo.mjs --url ws://127.0.0.1:8000/ws/v2/connect --room public:echo --bytes 60000
//
// Prints one JSON line per message and ends with 0 when all came back, in order.

import { address, connect, fail, options, print } from "./client.mjs";

const { url, room, token, bytes, timeout } = options({
  url: "ws://127.0.0.1:8000/ws/v2/connect",
  room: "public:echo",
  token: "",
  bytes: 60_000,
  timeout: 20,
});

// Texts of JSON, as they are published: data passes through untouched.
const published = [
  "null",
  "true",
  '""',
  "0",
  "-0.0",
  "1E400",
  "12345678901234567890123456789",
  '"\\u0041\\u2028\\ud83d\\ude00 grüße 世界 😀"',
  '{ "spaces" :  [ 1 , 2 ] }',
  '{"twice":1,"other":2}',
  `${"[".repeat(60)}${"]".repeat(60)}`,
  ...[1, 125, 126, 127, 4096, 65_000].filter((n) => n <= bytes).map((n) => `"${"x".repeat(n)}"`),
  `"${"ä".repeat(Math.floor(bytes / 2))}"`,
];

setTimeout(() => fail(`${back} of ${published.length} came back in ${timeout} s`), timeout * 1000);

let back = 0;
const connection = connect(address(url, { token }), {
  frame(value) {
    if (value.type === "hello") connection.send({ type: "subscribe", id: 1, room });
    if (value.type === "subscribed") published.forEach(publish);
    if (value.type === "error") fail(`refused: ${value.raw}`);
    if (value.type === "message") compare(value.raw);
  },
  closed(code, reason) {
    if (code !== 1000) fail(`closed with ${code} ${reason}`);
    process.exit(0);
  },
});

/** Every second one goes in three fragments, cut wherever it falls, also inside of a character. */
function publish(data, number) {
  const head = JSON.stringify({ type: "publish", id: number + 2, room }).slice(0, -1);
  const frame = Buffer.from(`${head},"data":${data}}`);
  if (number % 2 === 0) return connection.socket.send(frame, { binary: false });
  const third = Math.floor(frame.length / 3);
  connection.socket.send(frame.subarray(0, third), { binary: false, fin: false });
  connection.socket.send(frame.subarray(third, 2 * third), { binary: false, fin: false });
  return connection.socket.send(frame.subarray(2 * third), { binary: false, fin: true });
}

function compare(raw) {
  const expected = published[back];
  const shown = expected.slice(0, 40);
  if (!raw.includes(`"data":${expected}`)) fail(`expected ${shown}, got ${raw.slice(0, 300)}`);
  print({ back, bytes: Buffer.byteLength(expected), data: shown });
  back += 1;
  if (back === published.length) connection.close();
}
