// A client's use of the types of the protocol: what must compile, and, behind `@ts-expect-error`,
// what must not. Nothing here runs.

import { CloseCode, ErrorCode, Limits, PROTOCOL_VERSION, shouldReconnect } from "../../../protocol/roomkeeper.js";
import type {
  AckFrame,
  ClientFrame,
  Condition,
  ErrorWord,
  HostCommand,
  LogEntry,
  MessageFrame,
  ServerFrame,
} from "../../../protocol/roomkeeper.js";

// --- commands --------------------------------------------------------------------------------------------------------

const filter: Condition = { and: [{ eq: { lang: "de" } }, { not: { in: { kind: ["a", "b"] } } }] };

export const right: ClientFrame[] = [
  { type: "connect", token: "t", session: null, resume: [{ room: "public:r0", epoch: "e", offset: 1, filter }] },
  { type: "subscribe", id: 1, room: "public:r0", since: { epoch: "e", offset: 0 }, presence: true, filter },
  { type: "subscribe", id: null, room: "public:r0", pattern: null },
  { type: "subscribe", pattern: "game:zone/*" },
  { type: "unsubscribe", room: "public:r0" },
  { type: "unsubscribe", pattern: "game:zone/*", room: null },
  { type: "publish", room: "public:r0", data: { any: ["thing", null] }, msg_id: "m", echo: false, tags: { a: "b" } },
  { type: "publish", room: "public:r0", data: null, class: "latest", key: "cursor", ttl_ms: 1000 },
  { type: "presence", room: "public:r0" },
  { type: "presence_update", room: "public:r0", data: "away" },
  { type: "history", room: "public:r0", limit: Limits.history_messages },
  { type: "refresh", token: "t" },
  { type: "ping", id: 11 },
  { type: "pong" },
  { type: "status", timestamp: "2026-11-21T10:56:23.608Z" },
];

export const wrong: ClientFrame[] = [
  // @ts-expect-error no such type
  { type: "shout", room: "public:r0" },
  // @ts-expect-error a room or a pattern
  { type: "subscribe", id: 1 },
  // @ts-expect-error not both
  { type: "subscribe", room: "public:r0", pattern: "public:*" },
  // @ts-expect-error a field that the command does not have
  { type: "unsubscribe", room: "public:r0", reason: "bored" },
  // @ts-expect-error data is required
  { type: "publish", room: "public:r0" },
  // @ts-expect-error latest needs a key
  { type: "publish", room: "public:r0", data: 1, class: "latest" },
  // @ts-expect-error a key is for latest only
  { type: "publish", room: "public:r0", data: 1, class: "reliable", key: "k" },
  // @ts-expect-error no such class
  { type: "publish", room: "public:r0", data: 1, class: "sometimes" },
  // @ts-expect-error a token is a text
  { type: "refresh", token: 1 },
  // @ts-expect-error and required
  { type: "refresh" },
  // @ts-expect-error an id is a number
  { type: "ping", id: "1" },
  // @ts-expect-error half a position
  { type: "history", room: "public:r0", since: { offset: 1 } },
  // @ts-expect-error tags are texts
  { type: "publish", room: "public:r0", data: 1, tags: { a: 1 } },
  // @ts-expect-error no such condition
  { type: "subscribe", room: "public:r0", filter: { xor: [] } },
];

export const own: HostCommand = { type: "game.move", id: 1, x: 3 };

// --- frames ----------------------------------------------------------------------------------------------------------

/** Every `type` is told apart; a new one in a later server ends up in `default`. */
export function told(frame: ServerFrame): string {
  switch (frame.type) {
    case "hello": {
      const version: typeof PROTOCOL_VERSION = frame.accepted_version;
      const rooms = frame.resumed.map((room) => ("error" in room ? room.error.code : room.messages.length));
      return `${version} ${frame.user_id ?? "nobody"} ${frame.session?.length ?? 0} ${rooms.length}`;
    }
    case "subscribed":
      return frame.room === null ? frame.pattern : `${frame.room} ${frame.offset + 1} ${count(frame.messages)}`;
    case "page":
    case "history":
      return `${frame.room} ${count(frame.messages)} ${frame.more}`;
    case "gap":
      return `${frame.to - frame.from} ${frame.reason === "retention"}`;
    case "ack":
      return place(frame);
    case "message":
      return frame.offset === null ? frame.class : `${frame.offset + 1} ${frame.previous ?? 0} ${frame.tags?.["lang"]}`;
    case "tombstone":
      return frame.reason;
    case "unsubscribed":
      return `${frame.room ?? frame.pattern} ${frame.code ?? 0}`;
    case "presence":
      return frame.members.map((member) => member.user_id).join();
    case "presence_event":
      return `${frame.seq} ${frame.event}`;
    case "presence_events":
      return `${frame.from} ${frame.seq} ${frame.total} ${frame.changes.map(({ event, user_id }) => event + user_id).join()}`;
    case "presence_count":
      return `${frame.seq} ${frame.total}`;
    case "presence_updated":
      return frame.room;
    case "refreshed":
      return frame.expires_at ?? "never";
    case "token_expiring":
      return frame.expires_at;
    case "ping":
      return frame.timestamp;
    case "pong":
      return String(frame.id);
    case "status":
      return `${frame.queue_bytes} ${frame.rooms.length}`;
    case "error": {
      const word: ErrorWord = frame.error;
      return frame.code === ErrorCode.rate_limited ? `${frame.retry_after_ms}` : word;
    }
    case "disconnect":
      return `${frame.code === CloseCode.restart} ${frame.reconnect_after_ms ?? 0} ${shouldReconnect(frame.code)}`;
    default: {
      const nothingElse: never = frame;
      return nothingElse;
    }
  }
}

function count(entries: LogEntry[]): number {
  return entries.filter((entry) => entry.type === "message").length;
}

function place(ack: AckFrame): string {
  // @ts-expect-error it may be null
  const offset: number = ack.offset;
  return `${offset} ${ack.level === "durable"}`;
}

export function wrongReads(message: MessageFrame, frame: ServerFrame): void {
  // @ts-expect-error what was published is not known
  message.data.text;
  // @ts-expect-error not every frame has a room
  frame.room;
  // @ts-expect-error a message has no such field
  message.body;
}

// --- tables ----------------------------------------------------------------------------------------------------------

const denied: 103 = ErrorCode.permission_denied;
const slow: 3001 = CloseCode.slow_consumer;
const most: 8 = Limits.tags;
// @ts-expect-error the number is part of the type
const other: 104 = ErrorCode.permission_denied;
// @ts-expect-error there is no such row
const none = CloseCode.bored;
// @ts-expect-error the tables can't be written
Limits.tags = 9;

export const numbers = [denied, slow, most, other, none];
