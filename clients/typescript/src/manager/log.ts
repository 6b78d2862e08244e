// The `[WS]` lines, without a line that repeats the one before it.
//
// It must never say what a message contains, nor an address with a token in it.

/** Writes lines with the documented prefix: to the console if nothing else is given; null writes nowhere. */
export function lineLog(write: ((line: string) => void) | null = console.log): (words: string) => void {
  let last = '';
  return (words) => {
    if (words !== last) write?.(`[WS] ${words}`);
    last = words;
  };
}
