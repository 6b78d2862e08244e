// Where the client stands in one room, and what a message that comes means for that.
//
// It must never let the same offset through twice, and never pass over a missing one in silence.

import type { Position } from '../protocol.js';

/** How many places of the application's own messages are remembered per room. */
const OWN_MAX = 1024;

/** What the place of a message says about it, or a position that the server names. */
export type Place =
  /** It is the next one, or where the client stands. */
  | 'next'
  /** It is new, but these are missing before it: the first and the last. */
  | readonly [number, number]
  /** It is the first of a log that nobody said began anew. */
  | 'new_epoch'
  /** It is one that the application does not want back. */
  | 'own'
  /** It was there before, or the server went back. */
  | 'duplicate';

/** What a gap says that counts here. */
export interface Skip {
  epoch: string;
  from: number;
  to: number;
  reason: string;
}

/** The position of one room. */
export class Track {
  /**
   * Places of messages that the application published without wanting them back, under their epochs. Their
   * acknowledgements may come before the messages between; what is read from the log while joining may hold them; and
   * under another epoch than the position's the log may go on, or have ended.
   */
  readonly #own = new Map<number, string>();

  constructor(
    /** The position to go on from. */
    public at: Position | null = null,
    /** Whether only some messages are wanted: then their places need not follow each other. */
    readonly filtered = false,
  ) {}

  /** What the place of a message means, without taking it. `previous` is what a filtered one names. */
  look(at: Position, previous: number | null): Place {
    const stood = this.at;
    if (!stood) return 'next';
    const hole = this.#hole(stood, previous === null ? at.offset : previous + 1, at.epoch, previous);
    const isNew = at.offset > stood.offset;
    // A log that goes on under another epoch leaves nothing out.
    if (at.epoch !== stood.epoch && (!isNew || hole)) return 'new_epoch';
    if (this.#own.get(at.offset) === at.epoch) return 'own';
    return isNew ? (hole ?? 'next') : 'duplicate';
  }

  /** The server says that the client has everything up to there. With a hole before that it stays where it is. */
  reach(at: Position): Place {
    const stood = this.at;
    const isSame = stood?.epoch === at.epoch;
    // The acknowledged places of one's own messages may lie ahead of what was read.
    if (isSame && at.offset < stood.offset) return this.#hole(at, stood.offset + 1, at.epoch) ? 'duplicate' : 'next';
    const hole = !this.filtered && stood && this.#hole(stood, at.offset + 1, at.epoch);
    if (isSame && hole) return hole;
    this.at = at;
    return !isSame && stood && (hole || at.offset < stood.offset) ? 'new_epoch' : 'next';
  }

  /** The server names messages that will not come. Answers what is missing before them. */
  skip({ epoch, from, to, reason }: Skip): Place {
    const stood = this.at;
    const isAnew = stood?.epoch !== epoch;
    if (reason === 'unknown_position') {
      // The client was ahead of the log: the only way back.
      this.#own.clear();
      this.at = { epoch, offset: Math.max(from - 1, 0) };
      return 'next';
    }
    if (isAnew || to > stood.offset) this.at = { epoch, offset: to };
    return isAnew || this.filtered ? 'next' : (this.#hole(stood, from, epoch) ?? 'next');
  }

  /** A message of the application's own has its place and will not come back. */
  pass(at: Position): void {
    if (!this.at) return;
    let { epoch, offset } = this.at;
    if (this.#own.get(at.offset) !== epoch) this.#own.set(at.offset, at.epoch);
    if (this.#own.size > OWN_MAX) this.#own.delete([...this.#own.keys()][0] as number);
    while (this.#own.get(offset + 1) === epoch) offset += 1;
    this.at = { epoch, offset };
  }

  /**
   * What is missing between `stood` and `next`, both exclusive, in the log that goes on to an epoch. Places of one's own
   * at its ends are not; and what lies before one of them is known to whom it was not sent back.
   */
  #hole(stood: Position, next: number, epoch: string, previous: number | null = null): Place | null {
    const isOwn = (place: number) => [stood.epoch, epoch].includes(this.#own.get(place) as string);
    if (previous !== null && isOwn(previous)) return null;
    let from = stood.offset + 1;
    let to = next - 1;
    while (from <= to && isOwn(from)) from += 1;
    while (from <= to && isOwn(to)) to -= 1;
    return from <= to ? [from, to] : null;
  }
}
