// Writes the conformance vectors from the tables beside it; with --check, fails where the files are old.
// It must never import a client: what clients are held to is not made by one of them.

import { readFileSync, writeFileSync } from 'node:fs';
import { closeCodes, delays, failures, fullJitter } from './tables/codes.mjs';
import * as life from './tables/life.mjs';
import { sessions } from './tables/session.mjs';
import { tracks } from './tables/track.mjs';
import { patterns, tokens } from './tables/ways.mjs';

function lifeCases() {
  const cases = [];
  const add = (states, more) => {
    for (const [state, from] of Object.entries(states)) {
      for (const [name, event] of Object.entries(life.events)) {
        const { to = from, effects = [] } = life.table[state][name] ?? {};
        cases.push({ name: `${state}: ${name}`, ...more, from, event, to, effects });
      }
    }
  };
  add(life.states, {});
  add(life.deafStates, { config: life.deaf });
  for (const [name, from, event, to, effects] of life.more) cases.push({ name, from, event, to, effects });
  return cases;
}

const files = {
  'life.json': { config: life.config, cases: lifeCases() },
  'backoff.json': { cases: delays },
  'full_jitter.json': { cases: fullJitter },
  'close_codes.json': {
    cases: closeCodes.map(([code, reconnect, errorClass]) => ({ name: `${code}`, code, reconnect, class: errorClass })),
  },
  'classes.json': {
    cases: failures.map(([failure, errorClass, text]) => ({ name: text, failure, class: errorClass, text })),
  },
  'track.json': { cases: tracks },
  'session.json': { cases: [...sessions, ...tokens, ...patterns] },
};

let total = 0;
const old = [];
for (const [name, content] of Object.entries(files)) {
  const names = content.cases.map((one) => one.name);
  const twice = names.filter((one, at) => names.indexOf(one) !== at && name !== 'classes.json');
  if (twice.length > 0) throw new Error(`${name} has two cases of one name: ${twice}`);
  total += content.cases.length;
  const { cases, ...rest } = content;
  const head = JSON.stringify(rest).slice(0, -1);
  const lines = cases.map((one) => `  ${JSON.stringify(one)}`).join(',\n');
  const text = `${head}${head === '{' ? '' : ','}"cases":[\n${lines}\n]}\n`;
  const path = new URL(name, import.meta.url);
  if (process.argv.includes('--check')) {
    let there = '';
    try {
      there = readFileSync(path, 'utf8');
    } catch {}
    if (there !== text) old.push(name);
  } else {
    writeFileSync(path, text);
  }
}
console.log(`${total} cases`);
if (old.length > 0) {
  console.error(`old: ${old.join(', ')}; run node clients/vectors/make.mjs`);
  process.exit(1);
}
