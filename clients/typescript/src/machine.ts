// `@roomkeeper/client/machine`: the pure parts, for whoever builds something else on them.
//
// It must never have a state of its own.

export { type Backoff, type BackoffConfig, BackoffStrategy, fullJitter, MIN_DELAY_MS } from './connection/backoff.js';
export { classify, describe, type Failure, type WSErrorClass } from './connection/classify.js';
export {
  type Effect,
  IDLE,
  type Life,
  type LifeConfig,
  type LifeEvent,
  type Step,
  transition,
  type WSConnectionPhase,
} from './connection/life.js';
export { clientUrl } from './manager/manager.js';
export { shouldReconnect } from './protocol.js';
export { type Place, type Skip, Track } from './v2/track.js';
