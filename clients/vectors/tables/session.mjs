// What a client of protocol v2 says and tells, step by step. It must never be made from a client's code.

export const room = 'public:r';
export const at = (offset, epoch = 'a1') => ({ epoch, offset });
const sender = { user_id: null, connection_id: null };
const message = (offset, data, epoch = 'a1') => ({ type: 'message', room, epoch, offset, sender, data });
export const hello = (more = {}) => ({
  type: 'hello', id: null, accepted_version: 2, features: ['resume'], request_id: 'r-1', client_id: 'c', connection_id: '01',
  user_id: null, rooms: [], session: null, resumed: [], heartbeat_interval_ms: 25000, ...more,
});
export const subscribed = (id, offset, more = {}) => ({
  type: 'subscribed', id, room, epoch: 'a1', offset, recovered: false, messages: [], more: false, ...more,
});
const ack = (id, offset, more = {}) => ({ type: 'ack', id, room, epoch: 'a1', offset, duplicate: false, level: 'accepted', ...more });
export const error = (id, code, word, more = {}) => ({ type: 'error', id, code, error: word, message: word, field: null, retry_after_ms: null, ...more });

export const open = { open: true };
export const receive = (frame) => ({ receive: frame });
export const sent = (...frames) => ({ sent: frames });
export const told = (...events) => ({ told: events });
const settled = (...ends) => ({ settled: ends });
export const lose = (code = 1006, reason = '') => ({ lose: { code, reason } });
export const advance = (ms) => ({ advance: ms });
export const join = (options = {}) => ({ join: room, options });
export const publish = (data, msg_id, more = {}) => ({ publish: { room, data, msg_id, ...more } });
export const subscribe = (id, more = {}) => ({ type: 'subscribe', id, room, ...more });
const resumes = (id, offset, more = {}) => ({ type: 'connect', id, resume: [{ room, ...at(offset) }], ...more });

/** In the room, at an offset. */
export const inRoom = (offset = 0) => [open, receive(hello()), join(), sent(subscribe(1)), receive(subscribed(1, offset)), told(['joined', at(offset)], ['caughtUp', at(offset)]), settled(['join', 'joined'])];

const present = (user_id) => ({ user_id, data: null, connections: 1 });

/** In the room, and it is known who is there. */
const following = (seq, ...users) => [
  open,
  receive(hello()),
  join({ presence: true }),
  receive(subscribed(1, 0)),
  sent(subscribe(1, { presence: true }), { type: 'presence', id: 2, room }),
  receive({ type: 'presence', id: 2, room, seq, total: users.length, members: users.map(present) }),
];
const changes = (from, seq, total, ...all) => ({
  type: 'presence_events', room, from, seq, total, changes: all.map(([event, user_id]) => ({ event, user_id, data: null })),
});

const askList = (id) => ({ type: 'presence', id, room });
const list = (id, seq, ...users) => receive({ type: 'presence', id, room, seq, total: users.length, members: users.map(present) });
const one = (seq, event, user_id) => receive({ type: 'presence_event', room, seq, total: 1, event, user_id, data: null });

/** In the room, with the first list of members on its way. */
const waiting = [open, receive(hello({ heartbeat_interval_ms: 3600000 })), join({ presence: true }), receive(subscribed(1, 0)), sent(subscribe(1, { presence: true }), askList(2))];

/** Lists of members that do not come, or come too late, and changes that are older than a list. */
const members = [
  {
    name: 'a list of members that is refused for the moment is asked for again when that is over',
    steps: [
      ...waiting,
      receive(error(2, 114, 'unavailable', { retry_after_ms: 700 })),
      advance(699),
      sent(),
      advance(1),
      sent(askList(3)),
      list(3, 5, 'ann'),
      { members: ['ann'] },
      one(6, 'join', 'bob'),
      { members: ['ann', 'bob'] },
      advance(60000),
      sent(),
    ],
  },
  {
    name: 'a list of members that is refused for no named time is asked for again after a moment',
    steps: [...waiting, receive(error(2, 108, 'rate_limited')), advance(1999), sent(), advance(1), sent(askList(3)), receive(error(3, 108, 'rate_limited', { retry_after_ms: 0 })), advance(99), sent(), advance(1), sent(askList(4))],
  },
  {
    name: 'a list of members that is refused for the moment is not asked for sooner, whatever happens',
    steps: [
      ...waiting,
      one(3, 'join', 'bob'),
      receive(error(2, 114, 'unavailable', { retry_after_ms: 700 })),
      one(4, 'join', 'cyd'),
      one(9, 'join', 'dan'),
      list(null, 8, 'ann'),
      advance(699),
      sent(),
      advance(1),
      sent(askList(3)),
      list(3, 9, 'ann', 'dan'),
      { members: ['ann', 'dan'] },
    ],
  },
  {
    name: 'a list of members that was refused is asked for by the next connection and by nobody else',
    steps: [
      ...waiting,
      receive(error(2, 114, 'unavailable', { retry_after_ms: 700 })),
      lose(),
      { reopen: true },
      sent({ type: 'connect', id: 3, resume: [{ room, ...at(0), presence: true }] }),
      receive(hello({ id: 3, heartbeat_interval_ms: 3600000, resumed: [{ room, ...at(0), recovered: true, gap: null, messages: [], more: false }] })),
      sent(askList(4)),
      list(4, 1, 'ann'),
      advance(60000),
      sent(),
    ],
  },
  {
    name: 'a list of members that was refused is not asked for in a room that was left',
    steps: [...waiting, receive(error(2, 114, 'unavailable', { retry_after_ms: 700 })), { leave: room }, sent({ type: 'unsubscribe', id: 3, room }), receive({ type: 'unsubscribed', id: 3, room, code: null, reason: null }), advance(60000), sent()],
  },
  {
    name: 'a list of members that is refused for good is not asked for again',
    steps: [...waiting, receive(error(2, 103, 'permission_denied')), advance(60000), sent(), { state: 'joined' }],
  },
  {
    name: 'a list of members that does not come is asked for again',
    steps: [...waiting, advance(10000), sent(), advance(1999), sent(), advance(1), sent(askList(3)), list(3, 5, 'ann'), { members: ['ann'] }],
  },
  {
    name: 'a list of members that is too old when it comes is asked for again, and not at once',
    steps: [
      ...following(5, 'ann'),
      one(8, 'join', 'bob'),
      sent(askList(3)),
      one(9, 'join', 'cyd'),
      list(3, 8, 'ann', 'bob'),
      advance(1999),
      sent(),
      advance(1),
      sent(askList(4)),
      list(4, 9, 'ann', 'bob', 'cyd'),
      { members: ['ann', 'bob', 'cyd'] },
    ],
  },
  {
    name: 'a list of members that comes unasked and is too old is asked for once',
    steps: [...following(5, 'ann'), list(null, 4, 'old'), list(null, 3, 'older'), sent(askList(3)), list(3, 5, 'ann'), { members: ['ann'] }, advance(10000), sent()],
  },
  {
    name: 'a change that the list holds already is not told',
    steps: [
      ...following(5, 'ann', 'bob'),
      one(4, 'join', 'bob'),
      one(5, 'leave', 'cyd'),
      { changes: [] },
      one(6, 'join', 'dan'),
      one(6, 'join', 'dan'),
      receive(changes(4, 6, 3, ['leave', 'cyd'], ['join', 'dan'])),
      { changes: [['join', 'dan']] },
      receive(changes(6, 8, 4, ['update', 'dan'], ['join', 'eve'])),
      { changes: [['update', 'dan'], ['join', 'eve']] },
      { members: ['ann', 'bob', 'dan', 'eve'] },
      receive({ type: 'presence_count', room, seq: 20, total: 1003 }),
      one(19, 'join', 'flo'),
      { changes: [] },
      { total: 1003 },
    ],
  },
  {
    name: 'a change that comes before the list is told',
    steps: [...waiting, one(3, 'join', 'bob'), { changes: [['join', 'bob']] }, list(2, 3, 'ann', 'bob'), { members: ['ann', 'bob'] }, one(3, 'join', 'bob'), { changes: [] }],
  },
  {
    name: 'who does not follow the members of a room is not told of them',
    steps: [...inRoom(), one(1, 'join', 'bob'), list(null, 2, 'ann', 'bob'), receive({ type: 'presence_count', room, seq: 3, total: 1003 }), { changes: [] }, sent()],
  },
];

export const sessions = [
  { name: 'who is anonymous says nothing first', steps: [open, sent(), receive(hello()), sent()] },
  { name: 'a token stands in connect', token: 't', steps: [open, sent({ type: 'connect', id: 1, token: 't' })] },
  { name: 'a room is joined and tells where it stands', steps: inRoom(4) },
  { name: 'a wish from before the connection is asked for behind hello', steps: [join(), open, sent(), receive(hello()), sent(subscribe(1))] },
  { name: 'messages come in order', steps: [...inRoom(), receive(message(1, 'x')), receive(message(2, 'y')), told(['message', 1, 'x'], ['message', 2, 'y'])] },
  { name: 'several frames in one text', steps: [...inRoom(), { receiveText: `${JSON.stringify(message(1, 'x'))}\n${JSON.stringify(message(2, 'y'))}` }, told(['message', 1, 'x'], ['message', 2, 'y'])] },
  { name: 'an old message is not told twice', steps: [...inRoom(3), receive(message(3, 'x')), receive(message(2, 'x')), told()] },
  { name: 'what has no offset is told and moves nothing', steps: [...inRoom(3), receive({ ...message(null, 'x'), class: 'droppable' }), told(['message', null, 'x']), { position: at(3) }] },
  { name: 'what was missed comes in pages, in order', steps: [open, receive(hello()), join({ since: at(1) }), sent(subscribe(1, { since: at(1) })), receive(subscribed(1, 2, { recovered: true, messages: [message(2, 'b')], more: true })), receive({ type: 'page', room, ...at(4), messages: [message(3, 'c'), message(4, 'd')], more: false }), receive(message(5, 'e')), told(['joined', at(2)], ['message', 2, 'b'], ['message', 3, 'c'], ['message', 4, 'd'], ['caughtUp', at(4)], ['message', 5, 'e'])] },
  { name: 'a tombstone takes its place', steps: [...inRoom(), receive({ type: 'tombstone', room, ...at(1), reason: 'expired' }), receive(message(2, 'y')), told(['tombstone', 1], ['message', 2, 'y'])] },
  { name: 'a gap before subscribed is told first', steps: [open, receive(hello()), join({ since: at(1) }), receive({ type: 'gap', room, epoch: 'a1', from: 2, to: 3, reason: 'retention' }), receive(subscribed(1, 4, { messages: [message(4, 'd')] })), told(['gap', 2, 3, 'retention'], ['joined', at(4)], ['message', 4, 'd'], ['caughtUp', at(4)])] },
  { name: 'a log that began anew is told as a gap', steps: [open, receive(hello()), join({ since: at(9) }), receive({ type: 'gap', room, epoch: 'b2', from: 1, to: 0, reason: 'epoch_changed' }), receive({ ...subscribed(1, 1), epoch: 'b2', messages: [message(1, 'n', 'b2')] }), told(['gap', 1, 0, 'epoch_changed'], ['joined', at(1, 'b2')], ['message', 1, 'n'], ['caughtUp', at(1, 'b2')])] },
  { name: 'coming back, one frame names every room', steps: [...inRoom(4), lose(), told(), { reopen: true }, sent(resumes(2, 4)), receive(hello()), told(), receive(hello({ id: 2, resumed: [{ room, ...at(6), recovered: true, gap: null, messages: [message(5, 'e'), message(6, 'f')], more: false }] })), sent(), told(['joined', at(6)], ['message', 5, 'e'], ['message', 6, 'f'], ['caughtUp', at(6)])] },
  { name: 'a gap stands in its entry of hello', steps: [...inRoom(4), lose(), { reopen: true }, receive(hello({ id: 2, resumed: [{ room, ...at(8), recovered: false, gap: { from: 5, to: 7, reason: 'retention' }, messages: [message(8, 'h')], more: false }] })), told(['gap', 5, 7, 'retention'], ['joined', at(8)], ['message', 8, 'h'], ['caughtUp', at(8)])] },
  { name: 'a ticket is said beside the token', token: 't', steps: [open, sent({ type: 'connect', id: 1, token: 't' }), receive(hello({ id: 1, session: 'ticket' })), lose(), { reopen: true }, sent({ type: 'connect', id: 2, token: 't', session: 'ticket' })] },
  { name: 'a room that is refused on the way back is left', steps: [...inRoom(4), lose(), { reopen: true }, receive(hello({ id: 2, resumed: [{ room, error: { code: 103, error: 'permission_denied', message: 'no', retry_after_ms: null } }] })), told(['left', 103]), { state: 'out' }] },
  { name: 'a room that is refused for the moment is asked for again', steps: [...inRoom(4), lose(), { reopen: true }, sent(resumes(2, 4)), receive(hello({ id: 2, resumed: [{ room, error: { code: 114, error: 'unavailable', message: 'later', retry_after_ms: 700 } }] })), sent(), advance(699), sent(), advance(1), sent(subscribe(3, { since: at(4) }))] },
  { name: 'a room that the answer leaves out is asked for', steps: [...inRoom(4), lose(), { reopen: true }, sent(resumes(2, 4)), receive(hello({ id: 2 })), sent(subscribe(3, { since: at(4) }))] },
  { name: 'a server without resume is asked room by room', steps: [open, receive(hello({ features: [] })), join(), receive(subscribed(1, 4)), lose(), { reopen: true }, sent(), receive(hello({ features: [] })), sent(subscribe(2, { since: at(4) }))] },
  { name: 'a connect that is refused is said plainly', steps: [...inRoom(4), lose(), { reopen: true }, sent(resumes(2, 4)), receive(hello()), receive(error(2, 112, 'already_connected')), sent(subscribe(3, { since: at(4) }))] },
  { name: 'a publish is acknowledged', steps: [open, receive(hello()), publish({ n: 1 }, 'm-1'), sent({ type: 'publish', id: 1, room, data: { n: 1 }, msg_id: 'm-1', echo: true }), receive(ack(1, 1)), settled(['m-1', 'acked'])] },
  { name: 'a publish from before the connection goes out with it', steps: [publish(1, 'm-1'), open, sent(), receive(hello()), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true })] },
  { name: 'an unanswered publish is sent again under its name, in order', steps: [open, receive(hello()), publish(1, 'm-1'), publish(2, 'm-2'), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true }, { type: 'publish', id: 2, room, data: 2, msg_id: 'm-2', echo: true }), lose(), { reopen: true }, receive(hello()), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true }, { type: 'publish', id: 2, room, data: 2, msg_id: 'm-2', echo: true }), receive(ack(1, 1, { duplicate: true })), settled(['m-1', 'acked'])] },
  { name: 'a publish that was refused is reported', steps: [open, receive(hello()), publish(1, 'm-1'), receive(error(1, 103, 'permission_denied')), settled(['m-1', 'refused'])] },
  { name: 'a publish whose repetition is refused may have happened', steps: [open, receive(hello()), publish(1, 'm-1'), lose(), { reopen: true }, receive(hello()), receive(error(1, 103, 'permission_denied')), settled(['m-1', 'unanswered'])] },
  { name: 'a publish that is refused for no time is repeated after a moment', steps: [open, receive(hello()), publish(1, 'm-1'), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true }), receive(error(1, 114, 'unavailable', { retry_after_ms: 0 })), advance(99), sent(), advance(1), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true })] },
  { name: 'a publish that may have been stored is repeated', steps: [open, receive(hello()), publish(1, 'm-1'), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true }), receive(error(1, 114, 'unavailable', { retry_after_ms: 300 })), advance(299), sent(), advance(1), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true }), receive(ack(1, 1, { duplicate: true })), settled(['m-1', 'acked'])] },
  { name: 'a publish that is kept back does not go out before hello', steps: [open, receive(hello()), publish(1, 'm-1'), receive(error(1, 114, 'unavailable', { retry_after_ms: 300 })), lose(), { reopen: true }, advance(300), sent(), receive(hello()), sent({ type: 'publish', id: 1, room, data: 1, msg_id: 'm-1', echo: true }), advance(1000), sent()] },
  { name: 'a publish that was never sent has not happened', steps: [publish(1, 'm-1'), advance(60000), settled(['m-1', 'not_sent'])] },
  { name: 'a publish that was sent and not answered may have happened', steps: [open, receive(hello({ heartbeat_interval_ms: 3600000 })), publish(1, 'm-1'), advance(60000), settled(['m-1', 'unanswered'])] },
  { name: 'an acknowledgement that comes twice settles once', steps: [open, receive(hello()), publish(1, 'm-1'), receive(ack(1, 1)), receive(ack(1, 2)), settled(['m-1', 'acked'])] },
  { name: 'without echo the acknowledgement takes the place of the message', steps: [...inRoom(4), publish(1, 'm-1', { echo: false }), receive(ack(2, 5)), receive(message(6, 'f')), told(['message', 6, 'f']), { position: at(6) }] },
  { name: 'without echo an acknowledgement that comes too late still takes the place', steps: [open, receive(hello({ heartbeat_interval_ms: 3600000 })), join(), receive(subscribed(1, 4)), told(['joined', at(4)], ['caughtUp', at(4)]), publish(1, 'm-1', { echo: false }), advance(60000), settled(['join', 'joined'], ['m-1', 'unanswered']), receive(ack(2, 5)), receive(message(6, 'f')), told(['message', 6, 'f'])] },
  { name: 'without echo the acknowledgement of a publish that was repeated takes the place, too', steps: [...inRoom(4), publish(1, 'm-1', { echo: false }), receive(error(2, 114, 'unavailable', { retry_after_ms: 300 })), advance(300), receive(ack(2, 5, { duplicate: true })), receive(ack(2, 5)), receive(message(6, 'f')), told(['message', 6, 'f']), { position: at(6) }] },
  { name: 'without echo what is read from the log is not told', steps: [...inRoom(4), publish(1, 'm-1', { echo: false }), receive(ack(2, 6)), receive(message(5, 'e')), receive(message(6, 'own')), receive(message(7, 'g')), told(['message', 5, 'e'], ['message', 7, 'g'])] },
  { name: 'what comes of an own room while it is joined from its end is told', steps: [open, receive(hello({ rooms: [room] })), join(), receive(message(4, 'd')), receive(subscribed(1, 4)), receive(message(5, 'e')), told(['message', 4, 'd'], ['joined', at(4)], ['caughtUp', at(4)], ['message', 5, 'e'])] },
  { name: 'what comes of an own room while it is joined from a position is told once', steps: [open, receive(hello({ rooms: [room] })), join({ since: at(3) }), receive(message(4, 'd')), receive({ ...subscribed(1, 4), messages: [message(4, 'd')] }), told(['joined', at(4)], ['message', 4, 'd'], ['caughtUp', at(4)])] },
  { name: 'a ping is answered', steps: [open, receive(hello()), receive({ type: 'ping' }), sent({ type: 'pong' })] },
  { name: 'the server puts the client out of a room', steps: [...inRoom(), receive({ type: 'unsubscribed', id: null, room, code: 103, reason: 'permission_denied' }), told(['left', 103]), { state: 'out' }] },
  { name: 'a room is left', steps: [...inRoom(), { leave: room }, sent({ type: 'unsubscribe', id: 2, room }), receive({ type: 'unsubscribed', id: 2, room, code: null, reason: null }), { state: 'out' }, told()] },
  { name: 'left and joined again: what is still under way of the first is not told', steps: [...inRoom(2), { leave: room }, join(), sent({ type: 'unsubscribe', id: 2, room }, subscribe(3)), receive(message(3, 'old')), receive({ type: 'unsubscribed', id: 2, room, code: null, reason: null }), receive(subscribed(3, 5)), receive(message(6, 'new')), told(['joined', at(5)], ['caughtUp', at(5)], ['message', 6, 'new'])] },
  { name: 'a leave that is refused for the moment is said again', steps: [...inRoom(), { leave: room }, sent({ type: 'unsubscribe', id: 2, room }), receive(error(2, 114, 'unavailable', { retry_after_ms: 300 })), receive(message(1, 'old')), advance(299), sent(), advance(1), sent({ type: 'unsubscribe', id: 2, room }), receive({ type: 'unsubscribed', id: 2, room, code: null, reason: null }), { state: 'out' }, told()] },
  { name: 'a list that was put off is no reason to leave twice', steps: [open, receive(hello()), join({ presence: true }), receive(subscribed(1, 0)), sent(subscribe(1, { presence: true }), { type: 'presence', id: 2, room }), receive(error(2, 114, 'unavailable', { retry_after_ms: 300 })), { leave: room }, sent({ type: 'unsubscribe', id: 3, room }), advance(300), sent(), receive({ type: 'unsubscribed', id: 3, room, code: null, reason: null }), { state: 'out' }] },
  { name: 'joined again while a leave is put off: it is said again first', steps: [...inRoom(2), { leave: room }, sent({ type: 'unsubscribe', id: 2, room }), receive(error(2, 114, 'unavailable', { retry_after_ms: 300 })), join(), sent({ type: 'unsubscribe', id: 2, room }, subscribe(3)), receive({ type: 'unsubscribed', id: 2, room, code: null, reason: null }), receive(subscribed(3, 5)), advance(300), sent(), receive(message(6, 'new')), told(['joined', at(5)], ['caughtUp', at(5)], ['message', 6, 'new'])] },
  { name: 'a leave that is refused until its time is up: only coming back helps', steps: [...inRoom(2), { leave: room }, sent({ type: 'unsubscribe', id: 2, room }), receive(error(2, 108, 'rate_limited', { retry_after_ms: 60000 })), advance(9999), { state: 'leaving' }, advance(1), { closed: true }] },
  { name: 'joined again behind a leave that is refused for the moment: only coming back helps', steps: [...inRoom(2), { leave: room }, join(), sent({ type: 'unsubscribe', id: 2, room }, subscribe(3)), receive(error(2, 114, 'unavailable', { retry_after_ms: 300 })), { closed: true }] },
  { name: 'a hole is filled by coming back', steps: [...inRoom(4), receive(message(7, 'g')), told(), { closed: true }, { reopen: true }, sent(resumes(2, 4)), receive(hello({ id: 2, resumed: [{ room, ...at(7), recovered: true, gap: null, messages: [message(5, 'e'), message(6, 'f'), message(7, 'g')], more: false }] })), told(['joined', at(7)], ['message', 5, 'e'], ['message', 6, 'f'], ['message', 7, 'g'], ['caughtUp', at(7)])] },
  { name: 'a hole that stays is told', steps: [...inRoom(4), receive(message(7, 'g')), { closed: true }, { reopen: true }, receive(hello({ id: 2, resumed: [{ room, ...at(4), recovered: true, gap: null, messages: [], more: false }] })), receive(message(7, 'g')), told(['joined', at(4)], ['caughtUp', at(4)], ['gap', 5, 6, 'missing'], ['message', 7, 'g'])] },
  { name: 'a subscribe that is not answered ends the connection', steps: [open, receive(hello()), join(), advance(10000), { closed: true }] },
  { name: 'a server that says disconnect and does not close', steps: [open, receive(hello()), receive({ type: 'disconnect', code: 1012, reason: 'restart', reconnect: true, reconnect_after_ms: 900 }), advance(5000), { closed: true }, advance(899), { opening: false }, advance(1), { opening: true }] },
  { name: 'a stop is a stop', steps: [open, receive(hello()), lose(3505, 'session_replaced'), advance(3600000), { opening: false }] },
  { name: 'with a filter what was not wanted is no hole', steps: [open, receive(hello()), join({ filter: { eq: { lang: 'de' } } }), sent(subscribe(1, { filter: { eq: { lang: 'de' } } })), receive(subscribed(1, 3)), receive({ ...message(6, 'hallo'), previous: 3 }), receive({ ...message(9, 'tag'), previous: 6 }), told(['joined', at(3)], ['caughtUp', at(3)], ['message', 6, 'hallo'], ['message', 9, 'tag'])] },
  { name: 'presence is followed and a missed event asks for the list', steps: [open, receive(hello()), join({ presence: true }), sent(subscribe(1, { presence: true })), receive(subscribed(1, 0)), sent({ type: 'presence', id: 2, room }), receive({ type: 'presence', id: 2, room, seq: 5, total: 1, members: [{ user_id: 'ann', data: null, connections: 1 }] }), receive({ type: 'presence_event', room, seq: 5, total: 1, event: 'join', user_id: 'ann', data: null }), receive({ type: 'presence_event', room, seq: 6, total: 2, event: 'join', user_id: 'bob', data: 1 }), { members: ['ann', 'bob'] }, receive({ type: 'presence_event', room, seq: 8, total: 2, event: 'leave', user_id: 'ann', data: null }), sent({ type: 'presence', id: 3, room })] },
  {
    name: 'changes that come together are one step, and a list from their middle fits',
    steps: [
      ...following(5, 'ann'),
      receive(changes(6, 9, 3, ['join', 'bob'], ['update', 'ann'], ['join', 'cyd'])),
      { members: ['ann', 'bob', 'cyd'] },
      { total: 3 },
      receive(changes(6, 9, 3, ['join', 'bob'])),
      receive({ type: 'presence', id: null, room, seq: 12, total: 2, members: [present('ann'), present('dan')] }),
      receive(changes(10, 14, 2, ['leave', 'cyd'], ['leave', 'dan'], ['join', 'eve'], ['leave', 'flo'])),
      { members: ['ann', 'eve'] },
      { total: 2 },
      sent(),
    ],
  },
  {
    name: 'changes that begin behind a hole ask for the list',
    steps: [...following(5, 'ann'), receive(changes(7, 9, 2, ['join', 'bob'])), sent({ type: 'presence', id: 3, room })],
  },
  {
    name: 'names behind a number ask for the list where none has come',
    steps: [
      ...following(5, 'ann'),
      receive({ type: 'presence_count', room, seq: 1007, total: 1003 }),
      receive({ type: 'presence', id: null, room, seq: 0, total: 0, members: [] }),
      sent(),
      receive({ type: 'presence_event', room, seq: 2000, total: 1, event: 'join', user_id: 'ann', data: null }),
      sent({ type: 'presence', id: 3, room }),
    ],
  },
  {
    name: 'a crowd is counted until a list comes by itself',
    steps: [
      ...following(5, 'ann'),
      receive({ type: 'presence_count', room, seq: 1007, total: 1003 }),
      { members: [] },
      { total: 1003 },
      receive({ type: 'presence', id: null, room, seq: 1000, total: 996, members: [present('ann')] }),
      { total: 1003 },
      receive({ type: 'presence_count', room, seq: 2000, total: 10 }),
      { total: 10 },
      sent(),
      receive({ type: 'presence', id: null, room, seq: 2000, total: 2, members: [present('ann'), present('bob')] }),
      receive({ type: 'presence_event', room, seq: 2001, total: 1, event: 'leave', user_id: 'ann', data: null }),
      { members: ['bob'] },
      { total: 1 },
      sent(),
    ],
  },
  ...members,
];
