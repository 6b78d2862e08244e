// Where a client stands in a room, and what the next place means: each case is a list of steps, each with
// what it answers and where the client stands afterwards. It must never be made from a client's code.

const A = (offset) => ({ epoch: 'a', offset });
const B = (offset) => ({ epoch: 'b', offset });
const gap = (epoch, from, to, reason) => ({ epoch, from, to, reason });
const accept = (at, answers, stands, previous) => ({ accept: at, ...(previous === undefined ? {} : { previous }), answers, stands });
const reach = (at, answers, stands) => ({ reach: at, answers, stands });
const skip = (what, answers, stands) => ({ skip: what, answers, stands });
const pass = (at, stands) => ({ pass: at, answers: null, stands });

export const tracks = [
  { name: 'the first message tells where one stands', since: null, steps: [accept(A(7), 'next', A(7)), accept(A(8), 'next', A(8))] },
  { name: 'the next place is taken', since: A(4), steps: [accept(A(5), 'next', A(5))] },
  { name: 'an old place is not taken twice', since: A(4), steps: [accept(A(4), 'duplicate', A(4)), accept(A(1), 'duplicate', A(4))] },
  { name: 'a hole is told', since: A(4), steps: [accept(A(7), [5, 6], A(7))] },
  { name: 'a position that is named is taken', since: null, steps: [reach(A(9), 'next', A(9))] },
  { name: 'a page that ends where it stands', since: A(9), steps: [reach(A(9), 'next', A(9))] },
  { name: 'a page that ends ahead of its messages is a hole, and is not taken', since: A(9), steps: [reach(A(12), [10, 12], A(9))] },
  { name: 'a server that goes back', since: A(9), steps: [reach(A(8), 'duplicate', A(9))] },
  { name: 'a gap moves on', since: A(1), steps: [skip(gap('a', 2, 3, 'retention'), 'next', A(3)), accept(A(4), 'next', A(4))] },
  { name: 'a gap behind a hole', since: A(1), steps: [skip(gap('a', 4, 6, 'retention'), [2, 3], A(6))] },
  { name: 'a gap that is over already', since: A(9), steps: [skip(gap('a', 2, 3, 'overflow'), 'next', A(9))] },
  { name: 'a log that began anew', since: A(9), steps: [skip(gap('b', 1, 0, 'epoch_changed'), 'next', B(0)), accept(B(1), 'next', B(1))] },
  { name: 'a log that began anew and has lost its beginning', since: A(9), steps: [skip(gap('b', 1, 5, 'epoch_changed'), 'next', B(5)), accept(B(6), 'next', B(6))] },
  { name: 'a position ahead of the log', since: A(9), steps: [skip(gap('a', 4, 3, 'unknown_position'), 'next', A(3)), accept(A(4), 'next', A(4))] },
  { name: 'a position ahead of an empty log', since: A(9), steps: [skip(gap('a', 0, 0, 'unknown_position'), 'next', A(0))] },
  { name: 'a log that goes on under another epoch', since: A(4), steps: [accept(B(5), 'next', B(5))] },
  { name: 'a position under another epoch', since: A(4), steps: [reach(B(4), 'next', B(4)), accept(B(5), 'next', B(5))] },
  { name: 'another epoch with a hole is a new log', since: A(4), steps: [accept(B(6), 'new_epoch', B(6))] },
  { name: 'another epoch at the same place is a new log', since: A(4), steps: [accept(B(4), 'new_epoch', B(4))] },
  { name: 'another epoch at its beginning is a new log', since: A(4), steps: [accept(B(1), 'new_epoch', B(1))] },
  { name: 'a position of another epoch ahead is a new log', since: A(4), steps: [reach(B(6), 'new_epoch', B(6))] },
  { name: 'a position of another epoch behind is a new log', since: A(4), steps: [reach(B(3), 'new_epoch', B(3))] },
  { name: 'an own message takes its place', since: A(4), steps: [pass(A(5), A(5)), accept(A(6), 'next', A(6))] },
  { name: 'an own message ahead of others', since: A(4), steps: [pass(A(7), A(4)), accept(A(5), 'next', A(5)), accept(A(6), 'next', A(6)), accept(A(8), 'next', A(8))] },
  { name: 'an own message read from the log', since: A(4), steps: [pass(A(6), A(4)), accept(A(6), 'own', A(4)), accept(A(5), 'next', A(5))] },
  { name: 'a hole beside an own message', since: A(4), steps: [pass(A(7), A(4)), accept(A(9), [5, 8], A(9))] },
  { name: 'own messages without a position', since: null, steps: [pass(A(7), null), accept(A(9), 'next', A(9))] },
  { name: 'own messages in a row', since: A(4), steps: [pass(A(6), A(4)), pass(A(5), A(6))] },
  { name: 'an own message under another epoch', since: A(4), steps: [pass(B(5), A(4)), accept(B(6), 'next', B(6))] },
  { name: 'an own message read from the log that goes on under another epoch', since: A(4), steps: [pass(B(5), A(4)), accept(B(5), 'own', A(4)), accept(B(6), 'next', B(6)), reach(B(6), 'next', B(6))] },
  { name: 'an own message of the next log', since: A(4), steps: [pass(B(1), A(4)), skip(gap('b', 1, 0, 'epoch_changed'), 'next', B(0)), accept(B(2), 'next', B(2))] },
  { name: 'an own message of a log that has ended', since: A(4), steps: [skip(gap('b', 1, 0, 'epoch_changed'), 'next', B(0)), pass(A(1), B(0)), pass(A(2), B(0)), accept(B(1), 'next', B(1)), accept(B(2), 'next', B(2)), accept(B(4), [3, 3], B(4))] },
  { name: 'places ahead under an epoch that was gone on from may be of others', since: A(4), steps: [pass(A(6), A(4)), accept(B(5), 'next', B(5)), accept(B(6), 'next', B(6))] },
  { name: 'places ahead under an epoch that was gone on from excuse no hole', since: A(4), steps: [pass(A(6), A(4)), accept(B(5), 'next', B(5)), accept(B(7), [6, 6], B(7))] },
  { name: 'a page that ends before own messages', since: A(4), steps: [pass(A(5), A(5)), pass(A(6), A(6)), reach(A(4), 'next', A(6))] },
  { name: 'a page that ends behind own messages', since: A(4), steps: [pass(A(6), A(4)), accept(A(5), 'next', A(5)), reach(A(6), 'next', A(6))] },
  { name: 'own messages are forgotten with their log', since: A(4), steps: [pass(A(6), A(4)), skip(gap('b', 1, 0, 'epoch_changed'), 'next', B(0)), accept(B(1), 'next', B(1)), accept(B(6), [2, 5], B(6))] },
  { name: 'filtered: what was not wanted is no hole', since: A(4), filtered: true, steps: [accept(A(9), 'next', A(9), 4), accept(A(12), 'next', A(12), 2)] },
  { name: 'filtered: a later previous is a hole', since: A(4), filtered: true, steps: [accept(A(20), [5, 15], A(20), 15)] },
  { name: 'filtered: from the beginning', since: A(0), filtered: true, steps: [accept(A(5), 'next', A(5), 0)] },
  { name: 'filtered: a position ahead is no hole', since: A(4), filtered: true, steps: [reach(A(30), 'next', A(30))] },
  { name: 'filtered: a gap may begin anywhere', since: A(4), filtered: true, steps: [skip(gap('a', 40, 45, 'retention'), 'next', A(45)), accept(A(46), 'next', A(46), 45)] },
  { name: 'filtered: behind an own message nothing is missing', since: A(4), filtered: true, steps: [pass(A(33), A(4)), accept(A(35), 'next', A(35), 33)] },
  { name: 'filtered: an old place is not taken twice', since: A(4), filtered: true, steps: [accept(A(9), 'next', A(9), 4), accept(A(9), 'duplicate', A(9), 4)] },
  { name: 'filtered: places ahead under an epoch that was gone on from may be of others', since: A(5), filtered: true, steps: [pass(A(7), A(5)), accept(B(6), 'next', B(6), 5), accept(B(7), 'next', B(7), 6)] },
  { name: 'filtered: a log that goes on under another epoch', since: A(4), filtered: true, steps: [accept(B(9), 'next', B(9), 4), reach(A(12), 'next', A(12))] },
];
