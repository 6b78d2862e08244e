// What each frame of the server means: answers go to whoever asked, everything else becomes events.
//
// It must never take a place of a log before the message is known to be the next, nor go on with a list
// after a listener has left the room or ended the connection.

import { type ErrorFrame, type HelloFrame, type Position, TEMPORARY_ERRORS } from '../protocol.js';
import { span } from '../wire.js';
import type { Frame } from './requests.js';
import type { Room } from './room.js';
import { isIn, retryAfter, type Session } from './session.js';
import type { Place, Skip } from './track.js';
import { type Gap, type Left, RequestError } from './types.js';

/** The room is that which the frame names, if the application knows it. */
type Handler = (session: Session, frame: Frame, room: Room | undefined) => void;

/** A value of a frame, if it is what it has to be; else the frame makes no sense. */
function need<T>(value: unknown, isRight: boolean): T {
  if (isRight) return value as T;
  throw new TypeError('wrong field');
}
const whole = (value: unknown): number => need(value, Number.isSafeInteger(value) && (value as number) >= 0);
export const text = (value: unknown): string => need(value, typeof value === 'string');
const array = (value: unknown): Frame[] => need(value, Array.isArray(value));

const positionOf = (frame: Frame): Position => ({ epoch: text(frame.epoch), offset: whole(frame.offset) });

/** Whether the room is still in, on the same connection. */
function stillIn(session: Session, room: Room, connection = session.connection): boolean {
  return session.connection === connection && room.state === 'joined' && room.leaveId === null;
}

/** Whether to go on with a place that the server names. What is missing is asked for again once, by coming back. */
function promised(session: Session, room: Room, place: Place, { epoch, offset }: Position): boolean {
  const isAnew = place === 'new_epoch';
  if (!isAnew && typeof place === 'string') return true;
  const [from, to] = isAnew ? [offset, offset - 1] : place;
  const reason = isAnew ? 'epoch_changed' : 'missing';
  session.violation(`${room.name}: ${from} to ${to} ${reason}`);
  const stood = room.position?.offset;
  if (isAnew || room.holeAt === stood) {
    room.events.emit('gap', { epoch, from, to, reason });
    return true;
  }
  room.holeAt = stood;
  session.host.abandon({ code: 3003, reason: 'a hole' });
  return false;
}

/** One place of a log, live or missed. */
function entry(session: Session, frame: Frame, room: Room | undefined): void {
  // What comes of the room that every user is in has no position until it is joined. Anything else is of an
  // earlier membership, or brought by the subscription on its way, unless that begins with what comes next.
  if (!room) return;
  const isOut = room.state === 'out' || (room.state !== 'joined' && !room.position);
  const isOwn = isOut && session.ownRooms.has(frame.room);
  if (!isOwn && !stillIn(session, room)) return;
  if (!isOwn && frame.offset != null) {
    const at = positionOf(frame);
    const previous = typeof frame.previous === 'number' ? whole(frame.previous) : null;
    const place = room.track.look(at, previous);
    if (!promised(session, room, place, at) || place === 'own' || place === 'duplicate') return;
    room.track.at = at;
  }
  room.events.emit(frame.type === 'tombstone' ? frame.type : 'message', frame as never);
}

/** What was missed, up to where the frame says. */
function batch(session: Session, room: Room, frame: Frame, reached: Position): void {
  const { connection } = session;
  for (const message of array(frame.messages)) {
    entry(session, message, room);
    if (!stillIn(session, room, connection)) return;
  }
  const place = room.track.reach(reached);
  if (!promised(session, room, place, reached)) return;
  if (typeof place !== 'string') room.track.at = reached;
  if (!frame.more && stillIn(session, room, connection)) room.events.emit('caughtUp', room.position ?? reached);
}

/** The client is in. */
function joined(session: Session, room: Room, frame: Frame, gap: Skip | null): void {
  const reached = positionOf(frame);
  array(frame.messages);
  const { connection } = session;
  room.become('joined');
  if (gap && stillIn(session, room, connection)) skip(room, gap);
  if (!stillIn(session, room, connection)) return;
  room.succeeded({ position: reached, recovered: !!frame.recovered });
  void askPresence(session, room);
  if (stillIn(session, room, connection)) batch(session, room, frame, reached);
}

function skip(room: Room, gap: Skip): void {
  const place = room.track.skip(gap);
  // What is missing before it will not come either.
  if (typeof place !== 'string') gap.from = place[0];
  room.events.emit('gap', gap as Gap);
}

const gapOf = (epoch: unknown, gap: Frame): Skip => ({
  epoch: text(epoch),
  from: whole(gap.from),
  to: whole(gap.to),
  reason: text(gap.reason),
});

/** Whether the room's members are followed, on this connection. */
const isFollowed = (session: Session, room: Room | undefined): room is Room =>
  !!room?.options.presence && stillIn(session, room);

/** Asks for the list of members that this room follows, unless it is on its way, and again where none came of use. */
async function askPresence(session: Session, room: Room): Promise<void> {
  if (!isFollowed(session, room) || room.presence || room.asked) return;
  const asked = room.members();
  room.asked = asked;
  const refusal = await asked.then(
    () => null,
    (error: RequestError) => error.refusal,
  );
  if (room.asked !== asked || (refusal && !isTemporary(refusal.code))) return;
  const again = () => {
    room.asked = null;
    void askPresence(session, room);
  };
  if (room.presence) room.asked = null;
  else room.cancel = session.timer(retryAfter(refusal), again);
}

/** The server ended a membership, or does not grant it again. */
function putOut(room: Room, refusal: Frame): void {
  const { code, error: reason } = refusal;
  room.failed(new RequestError('refused', refusal as unknown as ErrorFrame));
  room.become('out');
  room.events.emit('left', { code, reason } as Left);
}

const isTemporary = (code: unknown): boolean => TEMPORARY_ERRORS.includes(code as number);

function joinRefused(session: Session, room: Room, frame: Frame): void {
  if (isTemporary(frame.code)) {
    const again = () => session.sendJoin(room);
    room.become('away', session.timer(retryAfter(frame), again));
  } else putOut(room, frame);
}

/** The answer to a join; or what became of one room that `connect` named, which has no id. */
export const subscribed: Handler = (session, frame, room) => {
  // To a wish that was taken back.
  if (room?.state !== 'joining' || room.joinId !== (frame.id ?? null)) return;
  const error = frame.error as Frame | undefined;
  if (error) return joinRefused(session, room, error);
  joined(session, room, frame, frame.gap ? gapOf(frame.epoch, frame.gap as Frame) : null);
};

const page: Handler = (session, frame, room) => {
  if (room && stillIn(session, room)) batch(session, room, frame, positionOf(frame));
};

const gap: Handler = (_, frame, room) => {
  if (room && room.leaveId === null && isIn(room)) skip(room, gapOf(frame.epoch, frame));
};

const unsubscribed: Handler = (session, frame, room) => {
  if (session.answer(frame)) {
    if (room && room.leaveId === frame.id) session.left(room);
    return;
  }
  session.ownRooms.delete(frame.room);
  if (room && room.state !== 'out' && room.leaveId === null) {
    putOut(room, { ...frame, error: frame.reason, message: '' });
  }
};

const ack: Handler = (session, frame, room) => {
  const { pending, late } = session.requests;
  const publish = pending.get(frame.id)?.publish;
  // In its publisher's own order the acknowledgement stands for the message.
  const isSilent = publish ? !publish.echo : late.delete(frame.id);
  if (isSilent && typeof frame.offset === 'number') room?.track.pass(positionOf(frame));
  session.answer(frame);
};

// Who is here, or how many where names would be too many.
const presence: Handler = (session, frame, room) => {
  session.answer(frame);
  if (!isFollowed(session, room)) return;
  const { seq, total, members } = frame;
  room.listed(whole(seq), whole(total), members && array(members));
  void askPresence(session, room);
};

// Who came, went or changed: one, or several together.
const presenceEvent: Handler = (session, frame, room) => {
  if (!isFollowed(session, room)) return;
  const { seq, total, from = seq, changes = [frame] } = frame;
  if (!room.changed(whole(seq), whole(total), whole(from), array(changes)) || !isFollowed(session, room)) return;
  room.events.emit('presenceChange', frame as never);
  void askPresence(session, room);
};

const error: Handler = (session, frame) => {
  const { id } = frame;
  if (typeof id !== 'number') return session.events.emit('refused', frame as unknown as ErrorFrame);
  const passes = isTemporary(frame.code);
  if (session.connectId === id) {
    return session.connectRefused(passes, text(frame.message), span(frame.retry_after_ms));
  }
  const pending = session.requests.pending.get(id);
  const room = [...session.rooms.values()].find(({ joinId, leaveId }) => id === (pending ? leaveId : joinId));
  if (!pending) return room && joinRefused(session, room, frame);
  if (room && passes) return session.leaveLater(room, retryAfter(frame));
  const { publish } = pending;
  // What may have been stored after all, and what is being repeated, is repeated under its name.
  if (publish && passes && (frame.code === 114 || publish.sent > 1)) return session.hold(publish, retryAfter(frame));
  // The server asks for rights before it looks whether it has the message already.
  const code = publish && publish.sent > 1 ? 'unanswered' : 'refused';
  session.requests.take(pending).reject(new RequestError(code, frame as unknown as ErrorFrame, publish?.msgId));
};

/** What to do with each type of frame; others are answers, or the host's. */
export const HANDLERS: Readonly<Record<string, Handler>> = {
  __proto__: null as never,
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
  presence_events: presenceEvent,
  presence_count: presence,
  token_expiring: (session, frame) => session.events.emit('tokenExpiring', { expires_at: text(frame.expires_at) }),
  ping: ({ host }) => void (host.mayPong && host.send('{"type":"pong"}')),
  error,
  disconnect: (session, frame) =>
    session.farewell({
      code: whole(frame.code),
      reason: text(frame.reason),
      after: span(frame.reconnect_after_ms),
    }),
};
