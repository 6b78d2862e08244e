// Says every command to a running server, and checks each frame of both directions with Ajv
// against the JSON Schema, as it is on the wire.
//
//   node protocol/session.mjs --url ws://… --schema ../../protocol/roomkeeper.schema.json \
//     --token … --fresh … --bad …
//
// The token ends so soon that the server says so; the fresh one is another of the same user.
// Prints each frame as `{"direction","definition","answers","frame"}`, a JSON line each; ends with 1
// when a frame does not fit.

import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { address, connect, fail, options, print } from "../client.mjs";

const { url, schema, token, fresh, bad, timeout } = options({
  url: "ws://127.0.0.1:8000/ws/v2/connect",
  schema: "",
  token: "",
  fresh: "",
  bad: "rubbish",
  timeout: 30,
});

setTimeout(() => fail(`not done within ${timeout} s`), timeout * 1000);

// Strict: it refuses a schema with keywords that it does not know or that say nothing together.
const ajv = new Ajv2020({ strict: true, strictTypes: false, allowUnionTypes: true });
const document = JSON.parse(readFileSync(schema, "utf8"));
ajv.addSchema(document);
const checks = Object.keys(document.$defs)
  .filter((name) => /(Command|Frame)$/.test(name) && !/^(Client|Server|Host)/.test(name))
  .map((name) => [name, ajv.getSchema(`${document.$id}#/$defs/${name}`)]);

function check(direction, frame, answers = null) {
  const suffix = direction === "in" ? "Frame" : "Command";
  const fitting = checks.filter(([name, fits]) => name.endsWith(suffix) && fits(frame)).map(([name]) => name);
  if (fitting.length !== 1) fail(`${JSON.stringify(frame)} fits ${fitting.join(" and ") || "nothing"}`);
  print({ direction, definition: fitting[0], answers, frame });
  return fitting[0];
}

/** One connection; what it sends and hears is checked. */
class Session {
  #heard = [];
  #waiting = [];
  #sent = new Map();
  #id = 0;

  constructor(parameters) {
    this.closed = new Promise((resolve) => {
      this.connection = connect(address(url, parameters), {
        frame: ({ raw }) => this.#hear(JSON.parse(raw)),
        closed: (code) => resolve(code),
      });
    });
  }

  #hear(frame) {
    check("in", frame, this.#sent.get(frame.id) ?? null);
    this.#heard.push(frame);
    this.#waiting = this.#waiting.filter((look) => !look());
  }

  /** The next frame that nobody has taken yet and that is like this. */
  next(type, like = () => true) {
    return new Promise((resolve) => {
      const look = () => {
        const at = this.#heard.findIndex((frame) => frame.type === type && like(frame));
        if (at < 0) return false;
        resolve(this.#heard.splice(at, 1)[0]);
        return true;
      };
      if (!look()) this.#waiting.push(look);
    });
  }

  say(command) {
    const frame = { id: ++this.#id, ...command };
    this.#sent.set(frame.id, check("out", frame));
    this.connection.send(frame);
    return frame.id;
  }

  /** What a command is answered with. */
  ask(command, type = command.type) {
    const id = this.say(command);
    return this.next(type, (frame) => frame.id === id);
  }

  /** A text that is no command of the protocol, and its answer. */
  async refused(frame) {
    this.connection.send(frame);
    return this.next("error", ({ id }) => id === (frame.id ?? null));
  }
}

const room = "public:session";
const ann = new Session({ client_id: "ann", token });
await ann.next("hello");
await ann.next("token_expiring");
await ann.ask({ type: "refresh", token: fresh }, "refreshed");
await ann.ask({ type: "ping" }, "pong");

const bob = new Session({});
await bob.next("hello");
await bob.ask({ type: "subscribe", room, presence: true, since: null }, "subscribed");
await ann.ask({ type: "subscribe", room }, "subscribed");
await bob.next("presence_event", ({ event, user_id }) => event === "join" && user_id === "ann");
await bob.ask({ type: "subscribe", pattern: "public:*" }, "subscribed");

const publish = (more) => ann.ask({ type: "publish", room, data: { text: "grüße an alle" }, ...more }, "ack");
const first = await publish({ msg_id: "m-1", tags: { lang: "de" } });
await publish({ msg_id: "m-1" });
await publish({ class: "latest", key: "cursor" });
await publish({ class: "droppable", echo: false });
await publish({ ttl_ms: 1 });
for (let n = 0; n < 3; n += 1) await publish({ data: n, class: "reliable" });
await bob.next("message", ({ pattern }) => pattern === "public:*");
await bob.next("message", ({ class: word }) => word === "latest");
await bob.next("message", ({ class: word }) => word === "droppable");

await ann.ask({ type: "presence_update", room, data: { mood: "fine" } }, "presence_updated");
await bob.next("presence_event", ({ event }) => event === "update");
// More changes within a moment than are told by themselves, as often as it takes to have them within one.
for (let n = 0, type = ""; type !== "presence_events"; n += 1) {
  for (let of = 0; of < 19; of += 1) ann.say({ type: "presence_update", room, data: [n, of] });
  // Who waits in vain for one of both must not take what comes later, which ends with the same data.
  const last = ({ event, data, changes }) => event !== "leave" && JSON.stringify(changes ?? data).includes(`[${n},18]`);
  ({ type } = await Promise.race(["presence_event", "presence_events"].map((kind) => bob.next(kind, last))));
}
await bob.ask({ type: "subscribe", room: "crowd:session", presence: true }, "subscribed");
await bob.next("presence_count");
await ann.ask({ type: "presence", room });
await ann.ask({ type: "status" });
const { messages } = await ann.ask({ type: "history", room, limit: 5 });
if (!messages.some(({ type }) => type === "tombstone")) fail("no tombstone in the history");
await bob.ask({ type: "unsubscribe", pattern: "public:*" }, "unsubscribed");
await ann.ask({ type: "unsubscribe", room }, "unsubscribed");
await bob.next("presence_event", ({ event }) => event === "leave");

// Back with a position, with one of a log that is gone, with a filter, and where one may not be.
const since = { epoch: first.epoch, offset: first.offset };
const cat = new Session({});
await cat.next("hello");
await cat.ask({ type: "subscribe", room, since, filter: { eq: { lang: "de" } } }, "subscribed");
await publish({ tags: { lang: "de" } });
await cat.next("message", ({ previous }) => previous !== undefined);
await cat.ask({ type: "unsubscribe", room }, "unsubscribed");
const answer = cat.ask({ type: "subscribe", room, since: { epoch: "gone", offset: 9 } }, "subscribed");
await cat.next("gap");
if (!(await answer).more) fail("everything came at once");
await cat.next("page", ({ more }) => !more);
await cat.ask({ type: "subscribe", room }, "error");

const dan = new Session({ client_id: "dan" });
await dan.next("hello");
const back = await dan.ask(
  {
    type: "connect",
    resume: [
      { room, ...since },
      { room: "public:other", epoch: "gone", offset: 3, presence: false },
      { room: "nowhere:1", epoch: "gone", offset: 3 },
    ],
  },
  "hello",
);
if (back.resumed.length !== 3 || !("error" in back.resumed[2])) fail("not resumed as asked");

await dan.refused({ type: "no_such_type", id: 77 });
await dan.refused({ type: "publish", id: 78, room });
await dan.next("ping");
dan.say({ type: "pong" });

// A token that is not valid ends it.
ann.say({ type: "refresh", token: bad });
await ann.next("disconnect");
if ((await ann.closed) !== 3500) fail("closed for another reason");
process.exit(0);
