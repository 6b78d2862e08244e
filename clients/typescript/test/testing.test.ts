// What the fake server promises to whoever tests an own interface with it.
// It must never be tested against what only our own tests need.

import { expect, it } from 'vitest';
import { inRoom } from './world.js';

it('a delay holds for each way, and for what is sent from then on', async () => {
  const { server, clock, room, heard } = await inRoom();
  server.publish('public:r', 'before');
  server.delay(300);
  await clock.advance(10);
  expect(heard).toEqual(['before']);
  server.publish('public:r', 'slow');
  let at = 0;
  const sentAt = clock.now();
  void room.publish('asked', { echo: false }).then(() => {
    at = clock.now();
  });
  await clock.advance(299);
  expect(heard).toEqual(['before']);
  await clock.advance(1);
  expect(heard).toEqual(['before', 'slow']);
  await clock.advance(1000);
  expect(at - sentAt).toBe(600);
});

it('nothing overtakes what is delayed when the delay is over', async () => {
  const { server, clock, heard } = await inRoom();
  server.delay(300);
  server.publish('public:r', 'slow');
  server.delay(1);
  server.publish('public:r', 'quick');
  await clock.advance(299);
  expect(heard).toEqual([]);
  await clock.advance(1);
  expect(heard).toEqual(['slow', 'quick']);
});
