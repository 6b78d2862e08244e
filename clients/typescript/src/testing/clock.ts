// A clock that stands still until it is told to go on.
//
// It must never look at the real one: a test that uses it takes as long as its computation.

interface Timer {
  at: number;
  /** Those of one moment fire in the order in which they were set. */
  order: number;
  action: () => void;
}

/** How many turns of the microtask queue a step waits for: promises chained deeper than that are a surprise. */
const TURNS = 10;
/** How many timers may fire in one step: more is a loop that no time passes in. */
const FIRED_MAX = 1_000_000;

/** Virtual time, in ms. */
export class VirtualClock {
  #now = 0;
  #order = 0;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#now;
  }

  setTimer(action: () => void, ms: number): unknown {
    const timer = { at: this.#now + Math.max(0, ms), order: this.#order++, action };
    this.#timers.add(timer);
    return timer;
  }

  clearTimer(timer: unknown): void {
    this.#timers.delete(timer as Timer);
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Lets time pass: what is due fires in its order, and promises settle between. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (let fired = 0; ; fired++) {
      const next = this.#next(end);
      if (!next) break;
      if (fired === FIRED_MAX) throw new Error('timers fire without end');
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.action();
      await settle();
    }
    this.#now = end;
  }

  /** Lets time pass until something is so; throws if it is not within `ms`. */
  async until(isSo: () => boolean, ms = 600_000): Promise<void> {
    const end = this.#now + ms;
    await settle();
    while (!isSo()) {
      const next = this.#next(end);
      if (!next) throw new Error(`it is not so within ${ms} ms`);
      await this.advance(next.at - this.#now);
    }
  }

  #next(end: number): Timer | null {
    let next: Timer | null = null;
    for (const timer of this.#timers) {
      if (timer.at > end) continue;
      if (!next || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) next = timer;
    }
    return next;
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < TURNS; turn++) await Promise.resolve();
}
