// One client's story in whichever runtime runs this: `runtime.mjs <folder of the built package> <server> <token>`.
// It must never know which runtime that is, nor bring a WebSocket of its own: the runtime has one, or it fails.

const [, , folder, server, token] = process.argv;
const { RoomkeeperClient } = await import(`${folder}/index.js`);
const { FakeServer } = await import(`${folder}/testing/index.js`);

const say = (...words) => console.log(words.join(' '));

/** On virtual time, with nothing outside of this process. */
async function withTheFakeServer() {
  const fake = new FakeServer({ durable: true });
  const client = new RoomkeeperClient({ url: 'ws://fake', environment: fake.environment });
  const room = client.room('public:lobby');
  const heard = [];
  room.on('message', ({ data }) => heard.push(data));
  client.connect();
  void room.join();
  await fake.clock.advance(100);
  void room.publish('before');
  await fake.clock.advance(100);
  fake.crash();
  void room.publish('while away');
  await fake.clock.advance(1000);
  fake.restart();
  await fake.clock.advance(30_000);
  client.close();
  say('fake server:', heard.join(', '));
}

/** Over a socket. Whoever started this kills the server once it has read `joined`, and starts it again after `lost`. */
async function withTheServer() {
  const client = new RoomkeeperClient({ url: server, token, clientId: 'runtime' });
  const room = client.room('chat:lobby');
  const heard = [];
  const events = [];
  client.on('violation', (words) => events.push(`violation: ${words}`));
  room.on('gap', ({ from, to }) => events.push(`gap from ${from} to ${to}`));
  const all = new Promise((resolve) => {
    room.on('message', ({ data }) => {
      heard.push(data);
      if (heard.length === 2) resolve();
    });
  });
  const lost = new Promise((resolve) => client.on('lost', resolve));
  client.connect();
  await room.join({ presence: true });
  await room.publish('before');
  say('joined');
  const loss = await lost;
  const published = room.publish('while away');
  say('lost', loss.class);
  const { duplicate } = await published;
  await all;
  say('server:', heard.join(', '), duplicate ? 'twice' : 'once', ...events);
  client.close();
}

await withTheFakeServer();
await withTheServer();
