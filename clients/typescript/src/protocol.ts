// Protocol v2 of Roomkeeper, /ws/v2/connect. docs/protocol.md says what it all means.
//
// The server ignores nothing: what is not in a command's type is refused. A client ignores fields
// and frame types that it does not know, since later servers add some: give `switch` a default.
//
// Made by `cargo run -- schema --write protocol`: change domain/src/protocol/catalog instead.

/** What `hello.accepted_version` says. */
export const PROTOCOL_VERSION = 2;

/** A ticket to come back with. Opaque, and a secret like the token. At most 16384 bytes. */
export type Ticket = string;

/** A room's name: a namespace, a colon and the rest, without two dots side by side. At most 255 bytes. */
export type RoomName = string;

/** The epoch of a position. One that is not of this server's kind is that of a lost log. At most 64 bytes. */
export type AnyEpoch = string;

/** A room to be in again. All rooms of one list are different. */
export interface ResumeRoom {
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: AnyEpoch;
  /** The place of the last message; 0 stands before the first. */
  offset: number;
  /** Whether to follow who comes and goes; else false. */
  presence?: boolean | null;
  /** Which messages to get; without it all of them. */
  filter?: Condition | null;
}

/** Up to where a client has everything. */
export interface Position {
  /** The life of the log. */
  epoch: AnyEpoch;
  /** The place of the last message; 0 stands before the first. */
  offset: number;
}

/** The beginning of a room's name with its namespace, and a final `*`. At most 255 bytes. */
export type RoomPattern = string;

/** The client's own name for one publish, for sending it again without repeating it. At most 128 bytes. */
export type MessageId = string;

/** A trace and a span in it, in the form of the W3C's version 00. At most 55 bytes. */
export type TraceParent = string;

/** Says which earlier `latest` message a new one replaces. At most 64 bytes. */
export type MessageKey = string;

/** An instant in UTC with milliseconds, in ISO 8601. At most 24 bytes. */
export type Timestamp = string;

/** The client's own label. Not unique, not secret, grants nothing. At most 128 bytes. */
export type ClientId = string;

/** One connection. It is public: knowing it grants nothing. At most 16 bytes. */
export type ConnectionId = string;

/** A user, as the token's `sub` says. In presence also `anonymous:<connection id>`. At most 128 bytes. */
export type UserId = string;

/** One life of a room's log. Offsets of two epochs have nothing to do with each other. At most 16 bytes. */
export type Epoch = string;

/** Messages that will not come, of the entry's epoch. */
export interface ResumedGap {
  /** The first offset that will not come. */
  from: number;
  /** The last one; `from - 1` where an epoch began anew and nothing is lost. */
  to: number;
  /** Why. */
  reason: "retention" | "epoch_changed" | "unknown_position" | "overflow";
}

/** What lists of messages hold: whole frames. */
export type LogEntry =
  | MessageFrame
  | LatestMessageFrame
  | DroppableMessageFrame
  | TombstoneFrame;

/** A room that the client is in again. */
export interface ResumedRoom {
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** Where the client stands after `messages`. */
  offset: number;
  /** Whether `messages` begin where the client stopped. */
  recovered: boolean;
  /** What will not come, before `messages`. */
  gap: ResumedGap | null;
  /** What was missed, oldest first. */
  messages: LogEntry[];
  /** Whether `page` frames follow. */
  more: boolean;
}

/** Why a room was not resumed. */
export interface ResumeError {
  /** The row of the error table. */
  code: ErrorCode;
  /** Its word. */
  error: ErrorWord;
  /** What is wrong, for people; it may change. */
  message: string;
  /** After how many milliseconds to try again. */
  retry_after_ms: number | null;
}

/** A room that the client is not in again. The connection stays. */
export interface NotResumedRoom {
  /** Which room. */
  room: RoomName;
  /** Why not. */
  error: ResumeError;
}

/** What became of one room that `connect` named in `resume`. */
export type ResumeOutcome =
  | ResumedRoom
  | NotResumedRoom;

/** Who sent a message. */
export interface Sender {
  /** The user; null for an anonymous connection and for the server API. */
  user_id: UserId | null;
  /** The connection; null for the server API. */
  connection_id: ConnectionId | null;
}

/** A user who is in a room, over all connections. */
export interface Member {
  /** Who. */
  user_id: UserId;
  /** What `presence_update` has set. */
  data: unknown;
  /** Over how many connections. */
  connections: number;
}

/** What became of one member over some changes. */
export interface ChangedMember {
  /** What happened last; a `leave` may be of somebody who was not listed. */
  event: "join" | "leave" | "update";
  /** To whom. */
  user_id: UserId;
  /** What others see of the user. */
  data: unknown;
}

/** Tags of a message, by name. */
export type Tags = { [name: string]: string };

/** Which messages to get, by their tags. An object with one key. */
export type Condition =
  | { and: Condition[] }
  | { or: Condition[] }
  | { not: Condition }
  | { eq: { [name: string]: string } }
  | { in: { [name: string]: string[] } };

/** Says who the client is, and which rooms to be in again. Once, before anything else. */
export interface ConnectCommand {
  type: "connect";
  /** The token; without it and a ticket, nobody. */
  token?: string | null;
  /** The ticket of an earlier `hello`. */
  session?: Ticket | null;
  /** The rooms to be in again, all different. */
  resume?: ResumeRoom[] | null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Joins a room. */
export interface SubscribeCommand {
  type: "subscribe";
  /** Which room. */
  room: RoomName;
  /** Up to where the client has everything. */
  since?: Position | null;
  /** Whether to follow who comes and goes; else false. */
  presence?: boolean | null;
  /** Which messages to get; without it all of them. */
  filter?: Condition | null;
  /** Not in this form of the command. */
  pattern?: null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Follows all rooms of a pattern, from now on and without their logs. */
export interface SubscribePatternCommand {
  type: "subscribe";
  /** Which rooms. */
  pattern: RoomPattern;
  /** Not in this form of the command. */
  room?: null;
  /** Not in this form of the command. */
  since?: null;
  /** Not in this form of the command. */
  presence?: null;
  /** Not in this form of the command. */
  filter?: null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Leaves a room. */
export interface UnsubscribeCommand {
  type: "unsubscribe";
  /** Which room. */
  room: RoomName;
  /** Not in this form of the command. */
  pattern?: null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Follows a pattern no longer. */
export interface UnsubscribePatternCommand {
  type: "unsubscribe";
  /** Which rooms. */
  pattern: RoomPattern;
  /** Not in this form of the command. */
  room?: null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Sends a message to a room. */
export interface PublishCommand {
  type: "publish";
  /** Which room. */
  room: RoomName;
  /** The message. */
  data: unknown;
  /** The client's own name for it, for sending it again without repeating it. */
  msg_id?: MessageId | null;
  /** Whether the publisher, as a member, gets the message itself; else true. */
  echo?: boolean | null;
  /** How it is delivered; else the namespace's. */
  class?: "reliable" | "droppable" | null;
  /** Not in this form of the command. */
  key?: null;
  /** After how many milliseconds it is delivered as a tombstone. */
  ttl_ms?: number | null;
  /** By what members may choose it. */
  tags?: Tags | null;
  /** The trace that it belongs to. */
  traceparent?: TraceParent | null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Sends a message to a room that takes the place of the one before with the same key. */
export interface PublishLatestCommand {
  type: "publish";
  /** Which room. */
  room: RoomName;
  /** The message. */
  data: unknown;
  /** The client's own name for it, for sending it again without repeating it. */
  msg_id?: MessageId | null;
  /** Whether the publisher, as a member, gets the message itself; else true. */
  echo?: boolean | null;
  /** May be left out where it is the namespace's. */
  class?: "latest" | null;
  /** Which earlier message it replaces. */
  key: MessageKey;
  /** After how many milliseconds it is delivered as a tombstone. */
  ttl_ms?: number | null;
  /** By what members may choose it. */
  tags?: Tags | null;
  /** The trace that it belongs to. */
  traceparent?: TraceParent | null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Asks who is in a room. */
export interface PresenceCommand {
  type: "presence";
  /** Which room. */
  room: RoomName;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Changes what others see of this user in a room. */
export interface PresenceUpdateCommand {
  type: "presence_update";
  /** Which room. */
  room: RoomName;
  /** What they see; `null` for nothing. */
  data: unknown;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Asks for earlier messages, without joining. */
export interface HistoryCommand {
  type: "history";
  /** Which room. */
  room: RoomName;
  /** From where on; else from the oldest kept. */
  since?: Position | null;
  /** How many at most; else 100. */
  limit?: number | null;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Brings a fresh token before the old one ends. */
export interface RefreshCommand {
  type: "refresh";
  /** The fresh token. */
  token: string;
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Asks for a `pong`; answered at any time. */
export interface PingCommand {
  type: "ping";
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Answers the server's `ping`. */
export interface PongCommand {
  type: "pong";
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** Asks how the connection stands. */
export interface StatusCommand {
  type: "status";
  /** Chosen by the client; the answer carries it. Without it, no answer. */
  id?: number | null;
  /** Ignored: the server believes its own clock only. */
  timestamp?: string | null;
}

/** A command for a handler of the server's host, with any fields of its own. */
export interface HostCommand {
  type: string;
  id?: number | null;
  [field: string]: unknown;
}

/** The connection is up: as whom, and how it is kept alive. */
export interface HelloFrame {
  type: "hello";
  /** That of `connect`; null when the server greets first. */
  id: number | null;
  /** The server's clock. */
  server_time: Timestamp;
  /** The protocol's version. */
  accepted_version: 2;
  /** What this server offers, as words. There may be new ones. */
  features: string[];
  /** What to quote to the operator. */
  request_id: string;
  /** The client's label. */
  client_id: ClientId;
  /** The connection. */
  connection_id: ConnectionId;
  /** The user; null for an anonymous connection. */
  user_id: UserId | null;
  /** The rooms that the connection is in without having asked. */
  rooms: RoomName[];
  /** The ticket to come back with; keep the last. */
  session: Ticket | null;
  /** What became of the rooms that `connect` named, in its order. */
  resumed: ResumeOutcome[];
  /** How many milliseconds of silence there are before the server says `ping`. */
  heartbeat_interval_ms: number;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** The client is a member, and has everything up to `offset` with `messages`. */
export interface SubscribedFrame {
  type: "subscribed";
  /** The command's; null where there was none. */
  id: number | null;
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** Where the client stands after `messages`. */
  offset: number;
  /** Whether `messages` begin where the client stopped. */
  recovered: boolean;
  /** Oldest first, without holes. */
  messages: LogEntry[];
  /** Whether `page` frames follow before live messages do. */
  more: boolean;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** The client follows all rooms of a pattern, from now on. */
export interface PatternSubscribedFrame {
  type: "subscribed";
  /** The command's; null where there was none. */
  id: number | null;
  /** Not in this form of the frame. */
  room: null;
  /** Which rooms. */
  pattern: RoomPattern;
  /** Not in this form of the frame. */
  epoch: null;
  /** Not in this form of the frame. */
  offset: null;
  /** A pattern recovers nothing. */
  recovered: false;
  /** Always empty. */
  messages: [];
  /** Nothing follows. */
  more: false;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** More of what was missed. */
export interface PageFrame {
  type: "page";
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** Where the client stands after `messages`. */
  offset: number;
  /** Oldest first, without holes. */
  messages: LogEntry[];
  /** Whether another `page` of this room follows. */
  more: boolean;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** Messages that will not come. */
export interface GapFrame {
  type: "gap";
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** The first offset that will not come. */
  from: number;
  /** The last one; `from - 1` where an epoch began anew and nothing is lost. */
  to: number;
  /** Why. */
  reason: "retention" | "epoch_changed" | "unknown_position" | "overflow";
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** A publish was taken. */
export interface AckFrame {
  type: "ack";
  /** The command's; null where there was none. */
  id: number | null;
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** The message's place; null for classes that have none. */
  offset: number | null;
  /** Whether the same `msg_id` had been taken before. */
  duplicate: boolean;
  /** How safe it is. */
  level: "accepted" | "replicated" | "durable";
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** A message of class `reliable`. */
export interface MessageFrame {
  type: "message";
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** Its place in the room's log. */
  offset: number;
  /** Who sent it. */
  sender: Sender;
  /** Its tags, if it has some. */
  tags?: Tags;
  /** The trace that it belongs to, if it has one. */
  traceparent?: TraceParent;
  /** What was published, as it came. */
  data: unknown;
  /** Only with a filter: up to where the client has been told all that it wants. */
  previous?: number;
  /** Which pattern brought it. */
  pattern?: RoomPattern;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** A message that takes the place of the one before with the same key. */
export interface LatestMessageFrame {
  type: "message";
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** Messages of this class have no place. */
  offset: null;
  /** Its class. */
  class: "latest";
  /** Which message it replaces. */
  key: MessageKey;
  /** Who sent it. */
  sender: Sender;
  /** Its tags, if it has some. */
  tags?: Tags;
  /** The trace that it belongs to, if it has one. */
  traceparent?: TraceParent;
  /** What was published, as it came. */
  data: unknown;
  /** Which pattern brought it. */
  pattern?: RoomPattern;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** A message that is of use only at once. */
export interface DroppableMessageFrame {
  type: "message";
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** Messages of this class have no place. */
  offset: null;
  /** Its class. */
  class: "droppable";
  /** Who sent it. */
  sender: Sender;
  /** Its tags, if it has some. */
  tags?: Tags;
  /** The trace that it belongs to, if it has one. */
  traceparent?: TraceParent;
  /** What was published, as it came. */
  data: unknown;
  /** Which pattern brought it. */
  pattern?: RoomPattern;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** The place of a message that is gone. */
export interface TombstoneFrame {
  type: "tombstone";
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** The place. */
  offset: number;
  /** Why it is gone. */
  reason: "expired" | "deleted";
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** The client is no longer a member. */
export interface UnsubscribedFrame {
  type: "unsubscribed";
  /** The command's; null where there was none. */
  id: number | null;
  /** Which room. */
  room: RoomName;
  /** Why the server ended it; null when the client did. */
  code: ErrorCode | null;
  /** The word for it. */
  reason: ErrorWord | null;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** The client follows a pattern no longer. */
export interface PatternUnsubscribedFrame {
  type: "unsubscribed";
  /** The command's; null where there was none. */
  id: number | null;
  /** Not in this form of the frame. */
  room: null;
  /** Which rooms. */
  pattern: RoomPattern;
  /** Why the server ended it; null when the client did. */
  code: ErrorCode | null;
  /** The word for it. */
  reason: ErrorWord | null;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** Who is in a room. */
export interface PresenceFrame {
  type: "presence";
  /** The command's; null where there was none. */
  id: number | null;
  /** Which room. */
  room: RoomName;
  /** The number of the last event that the list contains. */
  seq: number;
  /** How many members there are, listed or not. */
  total: number;
  /** In the order of their names. */
  members: Member[];
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** Somebody came, went or changed. */
export interface PresenceEventFrame {
  type: "presence_event";
  /** Which room. */
  room: RoomName;
  /** Grows by one with each event of the room. */
  seq: number;
  /** How many members there are after it. */
  total: number;
  /** What happened. */
  event: "join" | "leave" | "update";
  /** To whom. */
  user_id: UserId;
  /** What others see of the user. */
  data: unknown;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** What became of those who came, went or changed meanwhile: takes the place of the events of those numbers. */
export interface PresenceEventsFrame {
  type: "presence_events";
  /** Which room. */
  room: RoomName;
  /** The number of the first change that it tells of. */
  from: number;
  /** The number of the last. */
  seq: number;
  /** How many members there are after it. */
  total: number;
  /** Each member who changed, once, in the order of their names. */
  changes: ChangedMember[];
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** How many there are, where names would be too many; a list comes when names are told again. */
export interface PresenceCountFrame {
  type: "presence_count";
  /** Which room. */
  room: RoomName;
  /** The number of the last change. */
  seq: number;
  /** How many members there are after it. */
  total: number;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** What others see of the client's user was changed. */
export interface PresenceUpdatedFrame {
  type: "presence_updated";
  /** The command's; null where there was none. */
  id: number | null;
  /** Which room. */
  room: RoomName;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** Earlier messages. */
export interface HistoryFrame {
  type: "history";
  /** The command's; null where there was none. */
  id: number | null;
  /** Which room. */
  room: RoomName;
  /** The life of the log. */
  epoch: Epoch;
  /** Where to ask on. */
  offset: number;
  /** Oldest first, without holes. */
  messages: LogEntry[];
  /** Whether there are later ones. */
  more: boolean;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** A fresh token was taken. */
export interface RefreshedFrame {
  type: "refreshed";
  /** The command's; null where there was none. */
  id: number | null;
  /** When it ends, if it does. */
  expires_at: Timestamp | null;
  /** The ticket to come back with; keep the last. */
  session: Ticket | null;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** The token ends soon; bring a fresh one. */
export interface TokenExpiringFrame {
  type: "token_expiring";
  /** When it ends. */
  expires_at: Timestamp;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** Nothing was said for a while: answer `pong`, or anything else. */
export interface PingFrame {
  type: "ping";
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** Answers a client's `ping`. */
export interface PongFrame {
  type: "pong";
  /** The command's; null where there was none. */
  id: number | null;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** How the connection stands. */
export interface StatusFrame {
  type: "status";
  /** The command's; null where there was none. */
  id: number | null;
  /** The connection. */
  connection_id: ConnectionId;
  /** The user; null for an anonymous connection. */
  user_id: UserId | null;
  /** The rooms that it is a member of. */
  rooms: RoomName[];
  /** Since when it is up. */
  connected_since: Timestamp;
  /** How many bytes wait to be sent to it. */
  queue_bytes: number;
  /** What to quote to the operator. */
  request_id: string;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** A command, or a text that was none, failed. The connection stays. */
export interface ErrorFrame {
  type: "error";
  /** The command's, where it could be read. */
  id: number | null;
  /** The row of the error table. */
  code: ErrorCode;
  /** Its word. */
  error: ErrorWord;
  /** What is wrong, for people; it may change. */
  message: string;
  /** The field at fault. */
  field: string | null;
  /** After how many milliseconds it may succeed. */
  retry_after_ms: number | null;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** The connection ends; the close frame carries the same code and reason. */
export interface DisconnectFrame {
  type: "disconnect";
  /** The row of the table of close codes. */
  code: CloseCode;
  /** Its word. */
  reason: CloseReason;
  /** Whether to come back. */
  reconnect: boolean;
  /** After how many milliseconds. */
  reconnect_after_ms: number | null;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** What a handler of the server's host answers, under a type of its own. */
export interface HostFrame {
  type: string;
  /** The command's; null where there was none. */
  id: number | null;
  /** What it says. */
  data: unknown;
  /** When the server said it; of a message, when it was published. */
  timestamp: Timestamp;
}

/** Any command of the protocol. */
export type ClientFrame =
  | ConnectCommand
  | SubscribeCommand
  | SubscribePatternCommand
  | UnsubscribeCommand
  | UnsubscribePatternCommand
  | PublishCommand
  | PublishLatestCommand
  | PresenceCommand
  | PresenceUpdateCommand
  | HistoryCommand
  | RefreshCommand
  | PingCommand
  | PongCommand
  | StatusCommand;

/** Any frame of the server, but for its host's own. */
export type ServerFrame =
  | HelloFrame
  | SubscribedFrame
  | PatternSubscribedFrame
  | PageFrame
  | GapFrame
  | AckFrame
  | MessageFrame
  | LatestMessageFrame
  | DroppableMessageFrame
  | TombstoneFrame
  | UnsubscribedFrame
  | PatternUnsubscribedFrame
  | PresenceFrame
  | PresenceEventFrame
  | PresenceEventsFrame
  | PresenceCountFrame
  | PresenceUpdatedFrame
  | HistoryFrame
  | RefreshedFrame
  | TokenExpiringFrame
  | PingFrame
  | PongFrame
  | StatusFrame
  | ErrorFrame
  | DisconnectFrame;

/** The table of errors: word to number. */
export const ErrorCode = {
  /** The frame is not a JSON object of the protocol; counts as a strike. */
  bad_request: 100,
  /** `type` names nothing that this server handles. */
  unknown_type: 101,
  /** A field is missing, has the wrong type, the wrong range, or is not known; `field` names it. */
  invalid_field: 102,
  /** The token does not allow this in this room, or the room is private and may not exist. */
  permission_denied: 103,
  /** The room's namespace is not one that this server has. */
  unknown_room: 104,
  /** The connection is not a member of the room that the command needs it to be in. */
  not_subscribed: 105,
  /** The connection is already a member of the room, or has a join on its way. */
  already_subscribed: 106,
  /** The connection is in as many rooms as it may be in. */
  too_many_rooms: 107,
  /** Commands come faster than allowed; come back after `retry_after_ms`. */
  rate_limited: 108,
  /** A value is larger than its limit; `field` names it. */
  too_large: 109,
  /** The position lies outside the room's log. */
  invalid_position: 110,
  /** The command needs `connect` first, or came after it may only come before. */
  not_connected: 111,
  /** `connect` came twice, or as somebody else. */
  already_connected: 112,
  /** The token is not valid; get a new one. */
  invalid_token: 113,
  /** What the command needs is away for the moment; come back after `retry_after_ms`. */
  unavailable: 114,
  /** This server or this room does not offer that. */
  not_available: 115,
  /** A fault of the server; the details are in its log under `request_id`. */
  internal: 116,
  /** The room has as many members or different filters as it may have, or the node as many patterns. */
  room_full: 117,
} as const;
export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];
export type ErrorWord = keyof typeof ErrorCode;

/** The table of close codes: reason to number. */
export const CloseCode = {
  /** RFC 6455 section 7.4.1: the purpose is fulfilled. */
  normal: 1000,
  /** RFC 6455 section 7.4.1: the endpoint leaves. */
  going_away: 1001,
  /** RFC 6455 section 7.4.1: a frame breaks the protocol. */
  protocol_error: 1002,
  /** RFC 6455 section 7.4.1: binary where text is required. */
  unsupported_data: 1003,
  /** RFC 6455 section 7.4.1: text that is not UTF-8. */
  invalid_payload: 1007,
  /** RFC 6455 section 7.4.1: a policy is broken, like too many fragments. */
  policy_violation: 1008,
  /** RFC 6455 section 7.4.1: a message is larger than the limit. */
  message_too_big: 1009,
  /** A fault of the server ended this connection; come back. */
  internal_error: 1011,
  /** The server restarts; come back after `reconnect_after_ms`. */
  restart: 1012,
  /** The server takes no new connections now; come back later. */
  try_again_later: 1013,
  /** The client read too slowly and its queue was full; come back and recover. */
  slow_consumer: 3001,
  /** Nothing came for two heartbeat intervals; come back. */
  no_pong: 3002,
  /** A hole was found that could not be told in band; come back and recover. */
  insufficient_state: 3003,
  /** The token ran out; come back with a fresh one. */
  token_expired: 3004,
  /** Commands kept coming too fast; come back later and slower. */
  rate_limited: 3005,
  /** Nothing was asked for too long; come back when there is something to do. */
  idle: 3006,
  /** The token is missing or not valid. */
  unauthenticated: 3500,
  /** The token does not allow this endpoint. */
  forbidden: 3501,
  /** The protocol version is not served. */
  unsupported_version: 3502,
  /** Too many frames could not be parsed. */
  malformed_messages: 3503,
  /** No valid `connect` came in time. */
  authentication_timeout: 3504,
  /** Another connection took this session over. */
  session_replaced: 3505,
  /** The user has as many connections as allowed. */
  connection_limit: 3506,
  /** The token, user or connection was revoked. */
  revoked: 3507,
  /** Of `/ws/client`: another `version` than the one that is spoken there. */
  unsupported_protocol_version: 4400,
  /** Of `/ws/client`: a `role` that there is not. */
  invalid_client_role: 4401,
  /** Of `/ws/client`: the handshake failed by a fault of the server; come back. */
  server_handshake_error: 4500,
} as const;
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode];
export type CloseReason = keyof typeof CloseCode;

/** After these errors the same command may succeed later. */
export const TEMPORARY_ERRORS: readonly number[] = [108, 114, 116, 117];

/** After these close codes a client comes back: first and last of each range. */
export const RECONNECT_RANGES: readonly (readonly [number, number])[] = [
  [1001, 1001],
  [1006, 1006],
  [1011, 1013],
  [3000, 3499],
  [4500, 4500],
];

/** Whether to come back after a close code; 1006 where there was no close frame. */
export function shouldReconnect(code: number): boolean {
  return RECONNECT_RANGES.some(([first, last]) => first <= code && code <= last);
}

/** The limits that no setting changes. */
export const Limits = {
  /** Keys of one frame. */
  frame_keys: 32,
  /** Levels of one frame. */
  frame_levels: 64,
  /** The largest whole number: an id, an offset. */
  integer: 9007199254740991,
  /** Bytes of a room's name, and of a pattern. */
  room_bytes: 255,
  /** Bytes of a room's namespace. */
  namespace_bytes: 32,
  /** Bytes of `client_id`. */
  client_id_bytes: 128,
  /** Bytes of a user's id. */
  user_id_bytes: 128,
  /** Bytes of a ticket. */
  session_bytes: 16384,
  /** Rooms in `resume`. */
  resume_rooms: 128,
  /** Bytes of `msg_id`. */
  msg_id_bytes: 128,
  /** Bytes of `key`. */
  key_bytes: 64,
  /** Milliseconds in `ttl_ms`. */
  ttl_ms: 86400000,
  /** Tags of one message. */
  tags: 8,
  /** Bytes of a tag's name, and of its value. */
  tag_bytes: 64,
  /** Bytes of JSON of a filter. */
  filter_bytes: 4096,
  /** Levels of a filter. */
  filter_levels: 8,
  /** Conditions of a filter. */
  filter_conditions: 32,
  /** Values of a filter. */
  filter_values: 64,
  /** Bytes of JSON in `presence_update`. */
  presence_data_bytes: 4096,
  /** Messages that one `history` may ask for. */
  history_messages: 1000,
  /** How many it asks for else. */
  history_messages_default: 100,
} as const;
