// What each frame of the server means: answers go to whoever asked, everything else becomes events.
//
// It must never take a place of a log before the message is known to be the next, nor go on with a list
// after a listener has left the room or ended the connection.

import { type ErrorFrame, type HelloFrame, type Position, TEMPORARY_ERRORS } from '../protocol.js';
import { span } from '../wire.js';
import type { Frame } from './requests.js';
import type { Room } from './room.js';
import type { Session } from './session.js';
import type { Place, Skip } from './track.js';
import { type Gap, type Message, RequestError, type RoomEvents } from './types.js';

type Handler = (session: Session, frame: Frame) => void;

/** A whole number of the protocol; anything else makes the frame senseless. */
function whole(value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw new TypeError('a number is out of range');
}

function text(value: unknown): string {
  if (typeof value === 'string') return value;
  throw new TypeError('a text is missing');
}

function array(value: unknown): Frame[] {
  if (Array.isArray(value)) return value;
  throw new TypeError('a list is missing');
}

const positionOf = (frame: Frame): Position => ({ epoch: text(frame.epoch), offset: whole(frame.offset) });

/** Whether the room is still in, on the same connection. */
function stillIn(session: Session, room: Room, connection: number): boolean {
  return session.connection === connection && room.state === 'joined' && room.leaveId === null;
}

/** One place of a log, live or missed. Answers whether to go on with what follows it. */
function entry(session: Session, frame: Frame): boolean {
  const name = text(frame.room);
  const room = session.rooms.get(name);
  if (typeof frame.pattern === 'string') {
    session.patterns.get(frame.pattern)?.events.emit('message', frame as unknown as Message);
    return true;
  }
  // What comes of the room that every user is in has no position until it is joined.
  const isOwn = session.ownRooms.has(name);
  if (isOwn && (!room || room.state === 'out' || room.state === 'away')) {
    room?.events.emit(frame.type as 'message', frame as unknown as Message);
    return true;
  }
  // Of an earlier membership, or brought by the subscription on its way.
  if (!room || room.state !== 'joined' || room.leaveId !== null) {
    if (!room || room.state === 'out' || room.state === 'away') session.violation(`a message of ${name}, which nobody joined`);
    return true;
  }
  const at = frame.offset === null || frame.offset === undefined ? null : positionOf(frame);
  if (at) {
    const previous = typeof frame.previous === 'number' ? whole(frame.previous) : null;
    const place = room.track.look(at, previous);
    if (place.is === 'hole' && !session.hole(room, at, place.from, place.to)) return false;
    room.track.accept(at, previous);
    if (place.is === 'own' || place.is === 'duplicate') return true;
    if (place.is === 'new_epoch') anew(session, room, at.epoch, at.offset);
  }
  const { connection } = session;
  room.events.emit(frame.type as 'message', frame as unknown as Message);
  return stillIn(session, room, connection);
}

/** A log began anew and the server did not say so. */
function anew(session: Session, room: Room, epoch: string, offset: number): void {
  session.violation(`the log of ${room.name} began anew unsaid`);
  room.events.emit('gap', { epoch, from: offset, to: offset - 1, reason: 'epoch_changed' });
}

/** What was missed, up to where the frame says. */
function batch(session: Session, room: Room, frame: Frame, reached: Position): void {
  const { connection } = session;
  for (const message of array(frame.messages)) {
    if (!entry(session, message) || !stillIn(session, room, connection)) return;
  }
  const before = room.position;
  const place: Place = room.track.reach(reached);
  if (place.is === 'hole' && before) {
    // Not taken before it is known that coming back does not help.
    if (!session.hole(room, reached, place.from, place.to)) {
      room.track.rewind(before);
      return;
    }
  }
  if (place.is === 'new_epoch') anew(session, room, reached.epoch, reached.offset + 1);
  if (place.is === 'duplicate') session.violation(`the server went back in ${room.name}`);
  if (frame.more !== true && stillIn(session, room, connection)) room.events.emit('caughtUp', room.position ?? reached);
}

/** The client is in. */
function joined(session: Session, room: Room, frame: Frame, gap: Skip | null): void {
  const reached = positionOf(frame);
  array(frame.messages);
  const { connection } = session;
  room.joinId = null;
  room.become('joined');
  if (!stillIn(session, room, connection)) return;
  if (gap) skip(session, room, gap);
  room.succeeded({ position: reached, recovered: frame.recovered === true });
  if (room.options.presence && stillIn(session, room, connection)) askPresence(session, room);
  if (stillIn(session, room, connection)) batch(session, room, frame, reached);
}

function skip(session: Session, room: Room, gap: Skip): void {
  const before = room.position;
  const place = room.track.skip(gap);
  if (place.is === 'hole' && before) {
    session.violation(`${room.name}: ${place.from} to ${place.to} are missing`);
    room.events.emit('gap', { epoch: gap.epoch, from: place.from, to: place.to, reason: 'missing' });
  }
  room.events.emit('gap', gap as Gap);
}

const gapOf = (epoch: unknown, gap: Frame): Skip => ({
  epoch: text(epoch),
  from: whole(gap.from),
  to: whole(gap.to),
  reason: text(gap.reason),
});

/** Asks for the list of members that this room follows. */
function askPresence(session: Session, room: Room): void {
  const { connection } = session;
  const asked = session.ask<Frame>('presence', { type: 'presence', room: room.name });
  asked.then(
    (frame) => {
      if (stillIn(session, room, connection)) listed(session, room, frame);
    },
    () => {},
  );
}

function listed(session: Session, room: Room, frame: Frame): void {
  const members = array(frame.members) as unknown as { user_id: string; data: unknown }[];
  if (room.listed(whole(frame.seq), whole(frame.total), members)) askPresence(session, room);
}

/** The server ended a membership, or does not grant it again. */
function putOut(session: Session, room: Room, code: unknown, reason: unknown, error: RequestError): void {
  session.out(room);
  room.failed(error);
  const left = { code: typeof code === 'number' ? code : null, reason: typeof reason === 'string' ? reason : null };
  room.events.emit('left', left);
}

const isTemporary = (code: unknown): boolean => TEMPORARY_ERRORS.includes(code as number);
const refused = (frame: Frame): RequestError => new RequestError('refused', frame as unknown as ErrorFrame);

function joinRefused(session: Session, room: Room, frame: Frame): void {
  if (isTemporary(frame.code)) session.rejoinLater(room, span(frame.retry_after_ms));
  else putOut(session, room, frame.code, frame.error, refused(frame));
}

/** What became of one room that `connect` named. */
export const resumed: Handler = (session, outcome) => {
  const room = session.rooms.get(text(outcome.room));
  // Left meanwhile; the leave is on its way.
  if (room?.state !== 'joining' || room.joinId !== null || room.leaveId !== null) return;
  const error = outcome.error as Frame | undefined;
  if (error) return joinRefused(session, room, error);
  joined(session, room, outcome, outcome.gap ? gapOf(outcome.epoch, outcome.gap as Frame) : null);
};

const subscribed: Handler = (session, frame) => {
  if (typeof frame.pattern === 'string') return void session.answer(frame);
  const room = session.rooms.get(text(frame.room));
  // An answer to a wish that was taken back.
  if (room?.state !== 'joining' || room.joinId !== frame.id) return;
  joined(session, room, frame, null);
};

const page: Handler = (session, frame) => {
  const room = session.rooms.get(text(frame.room));
  if (room && stillIn(session, room, session.connection)) batch(session, room, frame, positionOf(frame));
};

const gap: Handler = (session, frame) => {
  const room = session.rooms.get(text(frame.room));
  if (room && room.leaveId === null && (room.state === 'joined' || room.state === 'joining')) {
    skip(session, room, gapOf(frame.epoch, frame));
  }
};

const unsubscribed: Handler = (session, frame) => {
  if (typeof frame.pattern === 'string') {
    if (!session.answer(frame)) session.patterns.get(frame.pattern)?.ended(frame);
    return;
  }
  const name = text(frame.room);
  const room = session.rooms.get(name);
  if (session.answer(frame)) {
    if (room && room.leaveId === frame.id) left(session, room);
    return;
  }
  session.ownRooms.delete(name);
  if (room && room.state !== 'out' && room.leaveId === null) {
    const refusal = { code: frame.code, error: frame.reason, message: 'the server ended the membership' };
    putOut(session, room, frame.code, frame.reason, refused(refusal as unknown as Frame));
  }
};

/** The last leave of a room was answered. */
function left(session: Session, room: Room): void {
  room.leaveId = null;
  if (room.state === 'leaving') session.out(room);
}

const ack: Handler = (session, frame) => {
  const pending = session.requests.get(frame.id);
  const publish = pending?.publish;
  // In its publisher's own order the acknowledgement stands for the message.
  if (publish && !publish.echo && frame.duplicate !== true && typeof frame.offset === 'number') {
    const room = session.rooms.get(publish.room);
    if (room?.state === 'joined') room.track.pass(positionOf(frame));
  }
  session.answer(frame);
};

const presence: Handler = (session, frame) => {
  if (session.answer(frame)) return;
  const room = session.rooms.get(text(frame.room));
  if (room && room.options.presence && stillIn(session, room, session.connection)) listed(session, room, frame);
};

const presenceEvent: Handler = (session, frame) => {
  const room = session.rooms.get(text(frame.room));
  if (!room || !stillIn(session, room, session.connection)) return;
  const isMissed = room.happened(whole(frame.seq), text(frame.event), text(frame.user_id), frame.data);
  room.events.emit('presenceChange', frame as unknown as RoomEvents['presenceChange']);
  if (isMissed) askPresence(session, room);
};

const error: Handler = (session, frame) => {
  const pending = session.requests.get(frame.id);
  const after = span(frame.retry_after_ms);
  if (session.isConnect(frame.id)) return session.connectRefused(isTemporary(frame.code), text(frame.message), after);
  for (const room of session.rooms.values()) {
    if (room.joinId !== null && room.joinId === frame.id) return joinRefused(session, room, frame);
    // It is not in the room, which is what was wanted.
    if (pending && room.leaveId === frame.id) {
      session.requests.take(frame.id);
      pending.resolve(frame);
      return left(session, room);
    }
  }
  if (!pending) {
    if (typeof frame.id !== 'number') session.events.emit('refused', frame as unknown as ErrorFrame);
    return;
  }
  // What may have been stored after all, and what is being repeated, is repeated under its name.
  const { publish } = pending;
  if (publish && isTemporary(frame.code) && (frame.code === 114 || publish.sent > 1)) return session.hold(publish, after);
  session.requests.take(frame.id);
  pending.reject(new RequestError('refused', frame as unknown as ErrorFrame, publish?.msgId ?? null));
};

/** What to do with each type of frame; others are answers, or the host's. */
export const HANDLERS: Readonly<Record<string, Handler>> = {
  hello: (session, frame) => session.greeted(frame as unknown as HelloFrame),
  subscribed,
  page,
  message: entry,
  tombstone: entry,
  gap,
  ack,
  unsubscribed,
  presence,
  presence_event: presenceEvent,
  token_expiring: (session, frame) => session.events.emit('tokenExpiring', { expires_at: text(frame.expires_at) }),
  ping: (session) => session.pong(),
  error,
  disconnect: (session, frame) =>
    session.farewell(whole(frame.code), text(frame.reason), span(frame.reconnect_after_ms)),
};
