// `@roomkeeper/client/testing`: a fake server with a virtual clock, for tests of one's own user interface.
//
// It must never be part of what a page loads.

export { VirtualClock } from './clock.js';
export { FakeRoom } from './log.js';
export { FakeServer, type FakeServerOptions } from './server.js';
