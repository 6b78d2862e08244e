// The `[WS]` lines, without a line that repeats the one before it.
//
// It must never say what a message contains, nor an address with a token in it.

/** Writes lines with the documented prefix. */
export class LineLog {
  #last: string | null = null;
  readonly #write: ((line: string) => void) | null;

  /** Writes to the console if nothing else is given; null writes nowhere. */
  constructor(write: ((line: string) => void) | null = console.log) {
    this.#write = write;
  }

  line(words: string): void {
    const line = `[WS] ${words}`;
    if (line === this.#last) return;
    this.#last = line;
    this.#write?.(line);
  }
}
