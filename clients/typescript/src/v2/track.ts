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
   * Places of messages that the application published without wanting them back. Their acknowledgements
   * may come before the messages between; and what is read from the log while joining may hold them.
   */
  readonly #own = new Set<number>();
  /**
   * The same under another epoch than the position's: the log goes on under it, or has ended. Which of both shows
   * when that epoch is entered, or never.
   */
  #foreign: Position[] = [];

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
    const hole = this.#holeBehind(stood.offset, at, previous);
    if (at.epoch !== stood.epoch) {
      // A log that goes on under another epoch leaves nothing out.
      if (at.offset <= stood.offset || hole) return 'new_epoch';
      return this.#isForeign(at.offset, at.epoch) ? 'own' : 'next';
    }
    if (this.#own.has(at.offset)) return 'own';
    if (at.offset <= stood.offset) return 'duplicate';
    return hole ?? 'next';
  }

  /** Takes the place of a message. */
  accept(at: Position, previous: number | null = null): Place {
    const place = this.look(at, previous);
    if (place === 'new_epoch') this.#begin(at);
    else if (place === 'next' || typeof place !== 'string') this.#goOn(at);
    return place;
  }

  /** The server says that the client has everything up to there. With a hole before that it stays where it is. */
  reach(at: Position): Place {
    const stood = this.#at;
    if (!stood) {
      this.#at = at;
      return 'next';
    }
    const hole = this.filtered ? null : this.#holeBefore(stood.offset, at.offset + 1, at.epoch);
    if (at.epoch !== stood.epoch) {
      if (at.offset >= stood.offset && !hole) {
        this.#goOn(at);
        return 'next';
      }
      this.#begin(at);
      return 'new_epoch';
    }
    if (at.offset < stood.offset) {
      // The acknowledged places of one's own messages may lie ahead of what was read.
      for (let place = at.offset + 1; place <= stood.offset; place++) {
        if (!this.#own.has(place)) return 'duplicate';
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
    const hole = this.filtered ? null : this.#holeBefore(stood.offset, gap.from, gap.epoch);
    if (gap.to > stood.offset) this.#at = { epoch: gap.epoch, offset: gap.to };
    return hole ?? 'next';
  }

  /** A message of the application's own has its place and will not come back. */
  pass(at: Position): void {
    const stood = this.#at;
    if (!stood) return;
    if (at.epoch !== stood.epoch) {
      this.#foreign.push(at);
      if (this.#foreign.length > OWN_MAX) this.#foreign.shift();
      return;
    }
    this.#own.add(at.offset);
    if (this.#own.size > OWN_MAX) this.#own.delete(Math.min(...this.#own));
    let offset = stood.offset;
    while (this.#own.has(offset + 1)) offset += 1;
    this.#at = { epoch: stood.epoch, offset };
  }

  /** What is missing before a message, which may name what it follows. */
  #holeBehind(stood: number, at: Position, previous: number | null): Place | null {
    if (previous === null) return this.#holeBefore(stood, at.offset, at.epoch);
    // What lies before a message of one's own is known to whom it was not sent back.
    return this.#isOwn(previous, at.epoch) ? null : this.#holeBefore(stood, previous + 1, at.epoch);
  }

  #isForeign(place: number, epoch: string): boolean {
    return this.#foreign.some((at) => at.epoch === epoch && at.offset === place);
  }

  /** Whether a place is one's own, in the log that goes on under an epoch. */
  #isOwn(place: number, epoch: string): boolean {
    return this.#own.has(place) || this.#isForeign(place, epoch);
  }

  /** The log begins anew: nothing that is known of the places of the one before counts. */
  #begin(at: Position): void {
    this.#own.clear();
    this.#goOn(at);
  }

  /** Stands there, in the log that goes on, if under another epoch. */
  #goOn(at: Position): void {
    if (this.#at?.epoch !== at.epoch) {
      for (const { epoch, offset } of this.#foreign) if (epoch === at.epoch) this.#own.add(offset);
      this.#foreign = this.#foreign.filter(({ epoch }) => epoch !== at.epoch);
    }
    this.#at = at;
  }

  /** What is missing between `stood` and `next`, both exclusive. Places of one's own at its ends are not. */
  #holeBefore(stood: number, next: number, epoch: string): Place | null {
    let from = stood + 1;
    let to = next - 1;
    while (from <= to && this.#isOwn(from, epoch)) from += 1;
    while (from <= to && this.#isOwn(to, epoch)) to -= 1;
    return from <= to ? [from, to] : null;
  }
}
