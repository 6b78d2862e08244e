// Tokens that are brought when they are asked for, and patterns that are followed, step by step. It must never be made from a
// client's code.

import { advance, error, hello, lose, open, publish, receive, sent, subscribe, subscribed, told, inRoom, at, join, room } from './session.mjs';

const asked = (n) => ({ asked: n });
const bring = (token) => ({ bring: token });
const bringNone = (why) => ({ bringNone: why });
const phase = (word) => ({ phase: word });
const connect = (id, token, more = {}) => ({ type: 'connect', id, token, ...more });
const refresh = (id, token) => ({ type: 'refresh', id, token });
const refreshed = (id, session) => ({ type: 'refreshed', id, expires_at: null, session });
const expiring = receive({ type: 'token_expiring', expires_at: '2026-11-27T00:00:00Z' });
const reopen = { reopen: true };

/** Known by the first token that was brought, with a ticket. */
const known = [asked(1), bring('t1'), open, sent(connect(1, 't1')), receive(hello({ id: 1, session: 's1', heartbeat_interval_ms: 3600000 }))];
/** An attempt that gets no token. */
const none = [asked(1), bringNone('no session')];

const tokenCases = [
  { name: 'a token is asked for before there is a socket', steps: [phase('connecting'), ...known, asked(0), phase('open')] },
  { name: 'while the ticket serves no other token is asked for', steps: [...known, lose(), reopen, asked(0), sent(connect(2, 't1', { session: 's1' }))] },
  { name: 'a token that has run out is replaced, and its ticket is not said', steps: [...known, lose(3004, 'token_expired'), advance(0), asked(1), bring('t2'), open, sent(connect(2, 't2')), receive(hello({ id: 2 })), phase('open')] },
  { name: 'a token that was revoked is not asked for again by itself', steps: [...known, lose(3507, 'revoked'), advance(3600000), asked(0), phase('fallback')] },
  { name: 'a token that has served and counts no more is got anew', steps: [...known, lose(3500, 'unauthenticated'), advance(0), asked(1), bring('t2'), open, sent(connect(2, 't2'))] },
  { name: 'a token that counts no more is got anew once', steps: [...known, lose(), reopen, lose(3500, 'unauthenticated'), advance(0), asked(1), bring('t2'), open, sent(connect(3, 't2')), lose(3500, 'unauthenticated'), advance(3600000), asked(0), phase('fallback')] },
  { name: 'a token that was refused, fresh as it is, is a stop', steps: [asked(1), bring('t1'), open, receive(error(1, 113, 'invalid_token')), { closed: true }, advance(3600000), asked(0), phase('fallback')] },
  { name: 'a token that can not be got is asked for five times in a row', steps: [...none, advance(0), ...none, advance(0), ...none, advance(0), ...none, advance(0), ...none, phase('fallback'), advance(3600000), asked(0)] },
  { name: 'the fifth token serves, and failures are counted anew', steps: [...none, advance(0), ...none, advance(0), ...none, advance(0), ...none, advance(0), asked(1), bring('t5'), open, sent(connect(1, 't5')), receive(hello({ id: 1 })), lose(3004, 'token_expired'), advance(0), ...none, advance(0), asked(1)] },
  { name: 'one token is on its way at a time, however many attempts wait for it', steps: [asked(1), advance(10000), phase('reconnecting'), asked(0), advance(10000), asked(0), bring('t1'), open, sent(connect(1, 't1'))] },
  { name: 'a token that ends is refreshed in place', steps: [...known, expiring, asked(1), bring('t2'), sent(refresh(2, 't2')), receive(refreshed(2, 's2')), lose(), reopen, asked(0), sent(connect(3, 't2', { session: 's2' }))] },
  { name: 'that a token ends is said twice and one is asked for', steps: [...known, expiring, expiring, asked(1), bring('t2'), sent(refresh(2, 't2'))] },
  { name: 'a token to refresh with that can not be got is asked for again', steps: [...known, expiring, ...none, phase('open'), advance(4999), asked(0), advance(1), asked(1), bring('t2'), sent(refresh(2, 't2'))] },
  { name: 'a refresh that was refused is tried again with another token', steps: [...known, expiring, asked(1), bring('t2'), sent(refresh(2, 't2')), receive(error(2, 113, 'invalid_token')), advance(5000), asked(1), bring('t3'), sent(refresh(3, 't3')), receive(refreshed(3, 's3')), advance(60000), asked(0)] },
  { name: 'a refresh that is not answered is tried again', steps: [...known, expiring, asked(1), bring('t2'), sent(refresh(2, 't2')), advance(14999), asked(0), advance(1), asked(1)] },
  { name: 'with the connection the refresh is over', steps: [...known, expiring, ...none, lose(), reopen, sent(connect(2, 't1', { session: 's1' })), receive(hello({ id: 2, heartbeat_interval_ms: 3600000 })), advance(60000), asked(0)] },
];

export const tokens = tokenCases.map(({ name, steps }) => ({ name, brings: true, steps }));

const pattern = 'public:*';
const follow = { follow: pattern };
const asks = (id) => ({ type: 'subscribe', id, pattern });
const following = (id) => receive({ type: 'subscribed', id, room: null, pattern, epoch: null, offset: null, recovered: false, messages: [], more: false });
const ended = (id, code, reason) => receive({ type: 'unsubscribed', id, room: null, pattern, code, reason });
const brought = (offset, data) => receive({ type: 'message', room: 'public:other', epoch: 'a1', offset, sender: { user_id: null, connection_id: null }, data, pattern });
const greeted = receive(hello({ heartbeat_interval_ms: 3600000 }));

/** Of a server that brings no rooms back. */
const plain = receive(hello({ features: [] }));

/** A pattern is followed. */
const followed = [open, greeted, follow, sent(asks(1)), following(1), told(['following'])];

export const patterns = [
  { name: 'what a pattern brings is told as it comes', steps: [...followed, brought(7, 'x'), brought(3, 'y'), brought(3, 'y'), told(['of pattern', 7, 'x'], ['of pattern', 3, 'y'], ['of pattern', 3, 'y'])] },
  { name: 'a pattern is followed on every connection, and that it was not is told', steps: [...followed, lose(), told(['ended', null]), reopen, sent(), greeted, sent(asks(2)), told(), following(2), told(['following']), brought(9, 'z'), told(['of pattern', 9, 'z'])] },
  { name: 'a pattern is asked for behind rooms and publishes', steps: [open, plain, follow, following(1), join(), receive(subscribed(2, 4)), publish(1, 'm-1'), lose(), reopen, plain, sent(subscribe(4, { since: at(4) }), { type: 'publish', id: 3, room, data: 1, msg_id: 'm-1', echo: true }, asks(5))] },
  { name: 'a pattern that the server lost something of is followed again after a second', steps: [...followed, ended(null, 114, 'unavailable'), told(['ended', 114]), brought(7, 'late'), advance(999), sent(), advance(1), sent(asks(2)), following(2), told(['following'])] },
  { name: 'a pattern that the server ended for good is not followed again', steps: [...followed, ended(null, 103, 'permission_denied'), told(['ended', 103]), advance(60000), sent(), lose(), reopen, greeted, sent(), told()] },
  { name: 'a pattern that is refused for the moment on the way back is asked for again', steps: [...followed, lose(), reopen, greeted, sent(asks(2)), told(['ended', null]), receive(error(2, 117, 'room_full', { retry_after_ms: 700 })), told(['ended', 117]), advance(699), sent(), advance(1), sent(asks(3)), following(3), told(['following'])] },
  { name: 'a pattern that is refused on the way back is left', steps: [...followed, lose(), reopen, greeted, sent(asks(2)), told(['ended', null]), receive(error(2, 103, 'permission_denied')), told(['ended', 103]), advance(60000), sent(), lose(), reopen, greeted, sent(), told()] },
  { name: 'a pattern that is followed no longer tells nothing', steps: [...followed, { unfollow: pattern }, sent({ type: 'unsubscribe', id: 2, pattern }), brought(7, 'late'), ended(2, null, null), told(), lose(), reopen, greeted, sent(), told()] },
  { name: 'a pattern from before the connection is asked for behind hello', steps: [follow, open, sent(), greeted, sent(asks(1))] },
  { name: 'rooms and patterns do not know of each other', steps: [...inRoom(4), follow, following(2), told(['following']), receive({ type: 'unsubscribed', id: null, room: null, pattern, code: 103, reason: 'permission_denied' }), told(['ended', 103]), { state: 'joined' }]  },
];
