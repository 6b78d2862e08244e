// Reads the conformance vectors. It must never change them.

import { readFileSync } from 'node:fs';

/** A file of cases. */
export interface File<Case> {
  cases: (Case & { name: string })[];
}

/** The cases of a file, and what else stands in it. */
export function vectors<Case, More = object>(name: string): File<Case> & More {
  return JSON.parse(readFileSync(new URL(`../../vectors/${name}.json`, import.meta.url), 'utf8'));
}
