// The `[WS]` lines, without a line that repeats the one before it.
//
// It must never say what a message contains, nor an address with a token in it, nor fail with what it writes to.

import { report } from '../emitter.js';

/** Writes lines with the documented prefix: to the console if nothing else is given; null writes nowhere. */
export function lineLog(write: ((line: string) => void) | null = console.log): (words: string) => void {
  let last = '';
  return (words) => {
    try {
      if (words !== last) write?.(`[WS] ${words}`);
    } catch (error) {
      report(error);
    }
    last = words;
  };
}
