// What a client of protocol v2 tells its application.
//
// It must never leave it open whether something was missed: that is an event of its own.

import type { Loss } from '../connection/driver.js';
import type { WSConnectionPhase } from '../connection/life.js';
import type {
  AckFrame,
  Condition,
  DroppableMessageFrame,
  ErrorFrame,
  HelloFrame,
  LatestMessageFrame,
  Member,
  MessageFrame,
  Position,
  PresenceEventFrame,
  PresenceEventsFrame,
  Tags,
  TombstoneFrame,
} from '../protocol.js';

/** A message of any class, with the type of what the application says. */
export type Message<T = unknown> = (
  | Omit<MessageFrame, 'data'>
  | Omit<LatestMessageFrame, 'data'>
  | Omit<DroppableMessageFrame, 'data'>
) & { data: T };

/** Messages that will not come. */
export interface Gap {
  epoch: string;
  /** The first offset that will not come. */
  from: number;
  /** The last one; `from - 1` where a log began anew and nothing is lost. */
  to: number;
  /** `missing`: the server broke its promise, twice at the same place. */
  reason: 'retention' | 'epoch_changed' | 'unknown_position' | 'overflow' | 'missing';
}

/** Where the client is with a room. `away`: it wants to be in, and is not connected or waits to try again. */
export type RoomState = 'out' | 'away' | 'joining' | 'joined' | 'leaving';

/** The client is in a room. */
export interface Joined {
  position: Position;
  /** Whether what was missed comes without a hole. */
  recovered: boolean;
}

/** Who is in a room. */
export interface Presence {
  /** By user id; at most as many as the server lists. */
  members: ReadonlyMap<string, Pick<Member, 'user_id' | 'data'>>;
  /** How many there are, listed or not. */
  total: number;
  /** Whether members are told by their names; where they are too many there is only `total`. */
  isNamed: boolean;
}

/** The server ended a membership, or did not grant it. */
export interface Left {
  /** The row of the error table. */
  code: number | null;
  reason: string | null;
}

/** What a room tells. */
export interface RoomEvents<T = unknown> {
  message: Message<T>;
  /** The place of a message that is gone. */
  tombstone: TombstoneFrame;
  gap: Gap;
  joined: Joined;
  /** All that was missed has come; what follows is live. */
  caughtUp: Position;
  left: Left;
  /** The whole list, after each change. */
  presence: Presence;
  /** Somebody came, went or changed; or several together, each with what became of it last. */
  presenceChange: PresenceEventFrame | PresenceEventsFrame;
  state: RoomState;
}

/** How the connection stands. */
export interface ClientState {
  phase: WSConnectionPhase;
  /** Why it does not come back by itself. */
  reason: string | null;
}

/** What a client tells. */
export interface ClientEvents {
  state: ClientState;
  hello: HelloFrame;
  /** An attempt, or the connection, came to an end. */
  lost: Loss;
  /** The token ends soon, and there is no callback for a fresh one. */
  tokenExpiring: { expires_at: string };
  /** The server refused something that nobody waits for. */
  refused: ErrorFrame;
  /** A frame of the server's host. */
  frame: { type: string; [field: string]: unknown };
  /** The server broke a promise of the protocol; the client goes on. */
  violation: string;
}

/** How to be in a room. */
export interface JoinOptions {
  /** Up to where everything is known; else the client begins with what comes next. */
  since?: Position | null;
  /** Also follow who comes and goes. */
  presence?: boolean;
  /** Only messages whose tags fit. */
  filter?: Condition | null;
}

/** How a message is delivered. */
export interface PublishOptions {
  /** The client's name for this publish; made up if it is left out. */
  msgId?: string;
  /** Whether the publisher gets the message itself; true. */
  echo?: boolean;
  class?: 'reliable' | 'latest' | 'droppable';
  key?: string;
  ttlMs?: number;
  tags?: Tags;
}

/** The server has taken a publish. */
export type Published = AckFrame & { msg_id: string };

/** Why a request came to nothing. */
export type RequestErrorCode =
  /** The server said no: see `refusal`. */
  | 'refused'
  /** There is no connection, or it ended before the answer. */
  | 'disconnected'
  /** No answer in time. */
  | 'timed_out'
  /** A publish was never sent: it has not happened. */
  | 'not_sent'
  /**
   * A publish was sent and not answered: it may have happened. Repeating it under `msgId` is harmless within ten minutes.
   * With a `refusal` the server refused to have it repeated, which it may have taken before.
   */
  | 'unanswered'
  /** As many publishes wait as may. */
  | 'outbox_full'
  /** As many requests or rooms are open as may. */
  | 'too_many'
  /** The room was left meanwhile. */
  | 'left'
  /** The client was closed. */
  | 'closed';

/** A request came to nothing. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  constructor(
    readonly code: RequestErrorCode,
    /** What the server said, if it was the server. */
    readonly refusal: Pick<ErrorFrame, 'code' | 'error' | 'message'> | null = null,
    /** The name of the publish that it was about, if it was one. */
    readonly msgId?: string,
  ) {
    super(refusal ? `${refusal.code} ${refusal.error}: ${refusal.message}` : code);
  }
}
