// A backend on Node's own fetch: every route of the server API once, and what it answers.
//
//   node server_api.mjs http://127.0.0.1:8000 KEY
//
// It ends with "done" when all of it was as expected.

import assert from "node:assert/strict";
import { WebSocket } from "ws";

const [url, key] = process.argv.slice(2);

async function call(path, body, headers = {}) {
  const response = await fetch(url + path, {
    method: body === undefined ? "GET" : "POST",
    headers: {
      authorization: `Bearer ${key}`,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return { status: response.status, answer: await response.json() };
}

async function ok(path, body, headers) {
  const { status, answer } = await call(path, body, headers);
  assert.equal(status, 200, `${path}: ${JSON.stringify(answer)}`);
  return answer;
}

const socket = new WebSocket(url.replace("http", "ws") + "/ws/v2/connect");
const frames = [];
let wake = () => {};
let closed;
socket.on("message", (data) => {
  frames.push(...String(data).split("\n").map((line) => JSON.parse(line)));
  wake();
});
socket.on("close", (code) => {
  closed = code;
  wake();
});

async function until(found) {
  for (;;) {
    const value = found();
    if (value !== undefined) return value;
    await new Promise((resolve) => {
      wake = resolve;
    });
  }
}
const frame = (type) => until(() => frames.find((one) => one.type === type));

const hello = await frame("hello");
socket.send(JSON.stringify({ type: "subscribe", id: 1, room: "public:node" }));
await frame("subscribed");

const data = { text: "from node" };
const first = await ok("/api/v1/publish", { room: "public:node", data }, { "idempotency-key": "n-1" });
assert.deepEqual([first.offset, first.duplicate], [1, false]);
const again = await ok("/api/v1/publish", { room: "public:node", data }, { "idempotency-key": "n-1" });
assert.deepEqual([again.offset, again.duplicate], [1, true]);
assert.deepEqual((await frame("message")).data, data);

const many = await ok("/api/v1/publish", { rooms: ["public:node", "public:other"], data: 2 });
assert.deepEqual(many.results.map((one) => one.room), ["public:node", "public:other"]);
const batch = await ok("/api/v1/batch", { publishes: [{ room: "public:node", data: 3 }, { room: "no:x", data: 4 }] });
assert.deepEqual([batch.failed, batch.results[1].error.error], [1, "unknown_room"]);
assert.equal((await ok("/api/v1/send", { user_id: "nobody", data: 5 })).connections, 0);

const query = (values) => new URLSearchParams(values).toString();
const presence = await ok(`/api/v1/presence?${query({ room: "public:node" })}`);
assert.equal(presence.members[0].user_id, `anonymous:${hello.connection_id}`);
const history = await ok(`/api/v1/history?${query({ room: "public:node", limit: 2 })}`);
assert.deepEqual([history.messages.length, history.more, history.gap], [2, true, null]);
const on = { room: "public:node", epoch: history.epoch, offset: history.offset };
assert.equal((await ok(`/api/v1/history?${query(on)}`)).messages.length, 1);
const rooms = await ok(`/api/v1/rooms?${query({ prefix: "public:" })}`);
assert.deepEqual(rooms.rooms.map((one) => [one.room, one.members]), [["public:node", 1]]);
const connections = await ok(`/api/v1/connections?${query({ room: "public:node" })}`);
assert.deepEqual(connections.connections.map((one) => one.connection_id), [hello.connection_id]);
assert.equal((await ok("/api/v1/openapi.json")).openapi, "3.1.0");

const body = { game: "relay", participants: ["ann", "bob"] };
const made = await ok("/api/v1/matches", body, { "idempotency-key": "n-2" });
const at = `/api/v1/matches/${made.match.id}`;
assert.deepEqual([made.match.state, made.match.room], ["waiting", `match:${made.match.id}`]);
assert.equal((await ok("/api/v1/matches", body, { "idempotency-key": "n-2" })).duplicate, true);
assert.equal((await ok(`${at}/start`, {})).match.state, "running");
assert.deepEqual((await ok("/api/v1/matches?state=running")).matches.map((one) => one.id), [made.match.id]);
assert.deepEqual((await ok(`${at}/end`, { result: { won: "ann" } })).match.result, { won: "ann" });
assert.equal((await ok(at)).state, "ended");
const late = await call(`${at}/start`, {});
assert.deepEqual([late.status, late.answer.code], [409, 115]);

const wrong = await call("/api/v1/publish", { room: "public:node", colour: 1, data: 1 });
assert.deepEqual([wrong.status, wrong.answer.code, wrong.answer.field], [400, 102, "colour"]);

const ended = await ok("/api/v1/disconnect", { connection_id: hello.connection_id, reconnect: false });
assert.deepEqual(ended, { disconnected: 1, code: 3501, reconnect: false, incomplete: false, missing: [] });
assert.equal(await until(() => closed), 3501);
assert.deepEqual(await ok("/api/v1/revoke", { user_id: "somebody" }), { revoked: true });
console.log("done");
