// Many clients over many rooms, some of which keep losing their connection; in the end each must
// hold every message of its room exactly once and in order.
//
//   node storm.mjs --url ws://127.0.0.1:8000/ws/v2/connect \
//     --clients 200 --rooms 20 --messages 10000 --drop 0.1 --seed 1
//
// All clients subscribe; then each publishes its share, a few at a time. One in ten drops its TCP
// connection without a word at random points, comes back with its position, and sends again what was
// not acknowledged, under the same msg_id. Prints a JSON report; ends with 1 on any violation.
// A server that is killed and comes back under the same address is one more drop for everybody.
//
// A msg_id is unique per user, else per client id, so every client has an id of its own, and a token
// of its own where --tokens names a file with a JSON list of them.

import { readFileSync } from "node:fs";
import { address, connect, options } from "./client.mjs";

const settings = options({
  url: "ws://127.0.0.1:8000/ws/v2/connect",
  clients: 200,
  rooms: 20,
  messages: 10_000,
  drop: 0.1,
  drops: 3, // per client that drops
  window: 8, // publishes under way per client
  bytes: 64, // of padding per message
  pause: 300, // milliseconds at most before coming back
  timeout: 120, // seconds for all of it
  seed: 1,
  prefix: "public:storm",
  tokens: "",
});

const VIOLATIONS_MAX = 50;
const tokens = settings.tokens === "" ? [] : JSON.parse(readFileSync(settings.tokens, "utf8"));
const violations = [];
const count = {
  deliveries: 0,
  drops: 0,
  closes: 0,
  connects: 0,
  retried: 0,
  duplicates: 0,
  refused: 0,
  recovered: 0,
  pages: 0,
};

/** A seeded generator (mulberry32): numbers from 0 up to but not including 1. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What the range of a close code says: come back or stop. */
function comesBack(code) {
  return [1001, 1006, 1011, 1012, 1013].includes(code) || (code >= 3000 && code < 3500);
}

class Client {
  constructor(number, share, drops, random) {
    this.number = number;
    this.name = `storm-${settings.seed}-${number}`;
    this.room = rooms[number % rooms.length];
    this.random = random;
    this.unsent = Array.from({ length: share }, (_, n) => `${number}.${n}`);
    this.waiting = new Map(); // command id → payload, published and not acknowledged
    this.again = []; // payloads to publish again
    this.acked = new Map(); // payload → offset
    this.held = []; // payloads in the order of their coming
    this.places = new Map(); // payload → offset
    this.epoch = null;
    this.base = null; // the room's last offset before the storm
    this.offset = null; // of the last message held
    this.live = false; // subscribed, and all that was missed has come
    this.commands = 0;
    this.failures = 0;
    this.drops = drops;
    this.stopped = false;
    this.open();
  }

  open() {
    count.connects += 1;
    const token = tokens[this.number];
    const url = address(settings.url, { client_id: this.name, token });
    const connection = connect(url, {
      frame: (value) => this.connection === connection && this.frame(value),
      closed: (code, reason) => this.connection === connection && this.closed(code, reason),
    });
    this.connection = connection;
  }

  frame(value) {
    switch (value.type) {
      case "hello":
        return this.subscribe();
      case "subscribed":
        return this.subscribed(value);
      case "page":
        count.pages += 1;
        return this.missed(value);
      case "message":
        return this.message(value);
      case "ack":
        return this.acknowledged(value);
      case "error":
        return this.refused(value);
      case "gap":
      case "unsubscribed":
      case "tombstone":
        return this.violation(`got ${value.raw}`);
      default:
        return undefined; // ping is answered below us; disconnect is followed by the close
    }
  }

  subscribe() {
    this.commands += 1;
    this.subscription = this.commands;
    const since = this.epoch === null ? undefined : { epoch: this.epoch, offset: this.offset };
    this.connection.send({ type: "subscribe", id: this.commands, room: this.room, since });
  }

  subscribed(value) {
    this.failures = 0;
    if (this.epoch === null) {
      this.epoch = value.epoch;
      this.offset = value.offset;
      this.base = value.offset;
      this.live = true;
      return begin();
    }
    if (!value.recovered) this.violation(`was not recovered: ${value.raw.slice(0, 200)}`);
    return this.missed(value);
  }

  /** The messages of `subscribed` or of a `page`. */
  missed(value) {
    const connection = this.connection;
    for (const message of value.messages) {
      count.recovered += 1;
      this.message(message);
      if (this.connection !== connection || connection.dropped) return;
    }
    if (value.more) return;
    if (value.offset !== this.offset) {
      this.violation(`${value.type} says ${value.offset}, the messages end at ${this.offset}`);
    }
    this.live = true;
    this.publish();
  }

  message({ epoch, offset, data, room }) {
    if (this.connection.dropped) return;
    if (room !== this.room) this.violation(`message of ${room}, which is another room`);
    if (epoch !== this.epoch) this.violation(`epoch ${epoch} instead of ${this.epoch}`);
    if (offset !== this.offset + 1) this.violation(`offset ${offset} after ${this.offset}`);
    if (this.places.has(data.n)) {
      this.violation(`${data.n} came at ${this.places.get(data.n)} and again at ${offset}`);
    }
    this.offset = offset;
    this.held.push(data.n);
    this.places.set(data.n, offset);
    count.deliveries += 1;
    if (this.drops.length > 0 && this.held.length >= this.drops[0]) this.drop();
    else if (this.done()) finish();
  }

  publish() {
    if (!begun || !this.live) return;
    while (this.waiting.size < settings.window) {
      const n = this.again.shift() ?? this.unsent.shift();
      if (n === undefined) return;
      this.commands += 1;
      this.waiting.set(this.commands, n);
      this.connection.send({
        type: "publish",
        id: this.commands,
        room: this.room,
        data: { n, padding },
        msg_id: n,
        echo: true,
      });
    }
  }

  acknowledged({ id, offset, epoch, duplicate }) {
    const n = this.waiting.get(id);
    if (n === undefined) return this.violation(`ack for ${id}, which was not asked`);
    this.waiting.delete(id);
    if (duplicate) count.duplicates += 1;
    if (epoch !== this.epoch) this.violation(`ack in epoch ${epoch} instead of ${this.epoch}`);
    if (this.acked.has(n)) this.violation(`${n} was acknowledged twice`);
    this.acked.set(n, offset);
    if (this.done()) finish();
    return this.publish();
  }

  /** A refusal that names a time is obeyed; any other is a violation. */
  refused(value) {
    const n = this.waiting.get(value.id);
    if (value.retry_after_ms === null || (n === undefined && value.id !== this.subscription)) {
      return this.violation(`refused: ${value.raw}`);
    }
    count.refused += 1;
    const connection = this.connection;
    this.waiting.delete(value.id);
    if (n !== undefined) this.again.unshift(n);
    setTimeout(() => {
      if (this.connection !== connection || connection.dropped) return;
      if (n === undefined) this.subscribe();
      else this.publish();
    }, value.retry_after_ms);
    return undefined;
  }

  /** Loses the connection without a word. */
  drop() {
    this.drops.shift();
    count.drops += 1;
    this.connection.dropped = true;
    this.connection.drop();
  }

  closed(code, reason) {
    this.live = false;
    const { dropped } = this.connection;
    this.connection = null;
    if (this.stopped) return;
    if (!dropped) {
      count.closes += 1;
      this.failures += 1;
      if (!comesBack(code)) return this.violation(`closed for good with ${code} ${reason}`);
    }
    count.retried += this.waiting.size;
    this.again = [...this.waiting.values(), ...this.again];
    this.waiting.clear();
    const pause = settings.pause * Math.min(2 ** Math.max(0, this.failures - 1), 8);
    setTimeout(() => this.stopped || this.open(), pause * this.random());
  }

  done() {
    return this.acked.size === shares[this.number] && this.held.length >= expected(this.room);
  }

  violation(words) {
    if (violations.length < VIOLATIONS_MAX) violations.push(`${this.name}: ${words}`);
    // What is broken doesn't mend; the first words are the ones that help.
    if (violations.length === VIOLATIONS_MAX || !this.live) setImmediate(report);
  }

  stop() {
    this.stopped = true;
    this.connection?.close();
  }
}

/** Everybody is subscribed: from here on whatever is published concerns everybody. */
function begin() {
  if (begun || clients.length < settings.clients) return;
  if (clients.some((client) => client.epoch === null)) return;
  begun = true;
  clients.forEach((client) => client.publish());
  finish();
}

function expected(room) {
  return totals.get(room);
}

function finish() {
  if (begun && clients.every((client) => client.done())) {
    // A moment for what must not come: a message too many.
    setTimeout(report, 200);
  }
}

/** Compares what everybody holds. */
function audit() {
  for (const room of rooms) {
    const members = clients.filter((client) => client.room === room);
    const [first] = members;
    for (const client of members) {
      const late = [...client.acked].find(([n, offset]) => client.places.get(n) !== offset);
      if (late) client.violation(`ack of ${late[0]} at ${late[1]}, came ${client.places.get(late[0])}`);
      if (client.acked.size !== shares[client.number]) {
        client.violation(`${client.acked.size} of ${shares[client.number]} acknowledged`);
      }
      if (client.held.length !== expected(room)) {
        client.violation(`holds ${client.held.length} of ${expected(room)} messages`);
      }
      const other = client.held.findIndex((n, at) => n !== first.held[at]);
      if (client.epoch !== first.epoch || client.base !== first.base || other >= 0) {
        client.violation(`differs from ${first.name} at message ${other} of ${room}`);
      }
    }
  }
}

function report() {
  if (reported) return;
  reported = true;
  clients.forEach((client) => client.stop());
  audit();
  const { clients: n, rooms: r, messages, seed } = settings;
  const seconds = (Date.now() - started) / 1000;
  const summary = { clients: n, rooms: r, messages, seed, seconds, ...count, violations };
  process.stdout.write(`${JSON.stringify(summary)}\n`, () => {
    process.exit(violations.length === 0 ? 0 : 1);
  });
}

const started = Date.now();
const random = generator(settings.seed);
const padding = "x".repeat(settings.bytes);
const rooms = Array.from({ length: settings.rooms }, (_, n) => `${settings.prefix}/${settings.seed}/${n}`);
const shares = Array.from({ length: settings.clients }, (_, n) =>
  Math.floor(settings.messages / settings.clients) + (n < settings.messages % settings.clients ? 1 : 0),
);
const totals = new Map(rooms.map((room) => [room, 0]));
shares.forEach((share, n) => {
  const room = rooms[n % rooms.length];
  totals.set(room, totals.get(room) + share);
});

/** After how many held messages a client drops; none for most clients. */
function dropPoints(number) {
  if (number >= Math.round(settings.clients * settings.drop)) return [];
  // Spread over the rooms, since neighbours are in different ones.
  const total = expected(rooms[number % rooms.length]);
  const points = Array.from({ length: settings.drops }, () => 1 + Math.floor(random() * (total - 1)));
  return points.filter((point) => point < total).sort((a, b) => a - b);
}

let begun = false;
let reported = false;
const clients = [];
for (let n = 0; n < settings.clients; n += 1) {
  clients.push(new Client(n, shares[n], dropPoints(n), generator(settings.seed * 100_003 + n)));
}
setTimeout(() => {
  violations.push(`not done after ${settings.timeout} s`);
  report();
}, settings.timeout * 1000);
