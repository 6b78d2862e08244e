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
  #at: Position | null;
  /**
   * Places of messages that the application published without wanting them back, under their epochs. Their
   * acknowledgements may come before the messages between; what is read from the log while joining may hold them; and
   * under another epoch than the position's the log may go on, or have ended.
   */
  readonly #own = new Set<string>();

  constructor(
    since: Position | null = null,
    /** Whether only some messages are wanted: then their places need not follow each other. */
    readonly filtered = false,
  ) {
    this.#at = since;
  }

  /** The position to go on from. */
  get position(): Position | null {
    return this.#at;
  }

  /** Stands there, whatever was before. */
  stand(at: Position): void {
    this.#at = at;
  }

  /** What the place of a message means, without taking it. `previous` is what a filtered one names. */
  look(at: Position, previous: number | null = null): Place {
    const stood = this.#at;
    if (!stood) return 'next';
    const hole = this.#hole(stood, previous === null ? at.offset : previous + 1, at.epoch, previous);
    const isNew = at.offset > stood.offset;
    // A log that goes on under another epoch leaves nothing out.
    if (at.epoch !== stood.epoch && (!isNew || hole)) return 'new_epoch';
    if (this.#own.has(key(at.epoch, at.offset))) return 'own';
    return isNew ? (hole ?? 'next') : 'duplicate';
  }

  /** Takes the place of a message. */
  accept(at: Position, previous: number | null = null): Place {
    const place = this.look(at, previous);
    if (place === 'new_epoch') this.#begin(at);
    else if (place === 'next' || typeof place !== 'string') this.#at = at;
    return place;
  }

  /** The server says that the client has everything up to there. With a hole before that it stays where it is. */
  reach(at: Position): Place {
    const stood = this.#at;
    if (!stood) {
      this.#at = at;
      return 'next';
    }
    const hole = this.filtered ? null : this.#hole(stood, at.offset + 1, at.epoch);
    if (at.epoch !== stood.epoch) {
      if (at.offset >= stood.offset && !hole) {
        this.#at = at;
        return 'next';
      }
      this.#begin(at);
      return 'new_epoch';
    }
    if (at.offset < stood.offset) {
      // The acknowledged places of one's own messages may lie ahead of what was read.
      for (let place = at.offset + 1; place <= stood.offset; place++) {
        if (!this.#own.has(key(at.epoch, place))) return 'duplicate';
      }
      return 'next';
    }
    if (!hole) this.#at = at;
    return hole ?? 'next';
  }

  /** The server names messages that will not come. Answers what is missing before them. */
  skip(gap: Skip): Place {
    const stood = this.#at;
    if (gap.reason === 'unknown_position') {
      // The client was ahead of the log: the only way back.
      this.#begin({ epoch: gap.epoch, offset: Math.max(gap.from - 1, 0) });
      return 'next';
    }
    if (stood?.epoch !== gap.epoch) {
      this.#begin({ epoch: gap.epoch, offset: gap.to });
      return 'next';
    }
    const hole = this.filtered ? null : this.#hole(stood, gap.from, gap.epoch);
    if (gap.to > stood.offset) this.#at = { epoch: gap.epoch, offset: gap.to };
    return hole ?? 'next';
  }

  /** A message of the application's own has its place and will not come back. */
  pass(at: Position): void {
    const stood = this.#at;
    if (!stood) return;
    const { epoch } = stood;
    this.#own.add(key(at.epoch, at.offset));
    if (this.#own.size > OWN_MAX) this.#own.delete([...this.#own][0] as string);
    let { offset } = stood;
    while (this.#own.has(key(epoch, offset + 1))) offset += 1;
    this.#at = { epoch, offset };
  }

  /** The log begins anew: what is known of the places of the one before does not count. */
  #begin(at: Position): void {
    for (const place of this.#own) if (this.#at && place.startsWith(this.#at.epoch)) this.#own.delete(place);
    this.#at = at;
  }

  /**
   * What is missing between `stood` and `next`, both exclusive, in the log that goes on to an epoch. Places of one's own
   * at its ends are not; and what lies before one of them is known to whom it was not sent back.
   */
  #hole(stood: Position, next: number, epoch: string, previous: number | null = null): Place | null {
    const isOwn = (place: number) => [stood.epoch, epoch].some((known) => this.#own.has(key(known, place)));
    if (previous !== null && isOwn(previous)) return null;
    let from = stood.offset + 1;
    let to = next - 1;
    while (from <= to && isOwn(from)) from += 1;
    while (from <= to && isOwn(to)) to -= 1;
    return from <= to ? [from, to] : null;
  }
}

const key = (epoch: string, offset: number): string => `${epoch} ${offset}`;
