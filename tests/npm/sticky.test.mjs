// Socket.IO over several workers: clients keep to the worker that has their session.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { io } from 'socket.io-client';
import { Home, app, freePort } from './support/home.mjs';

const WORKERS = 4;
const CLIENTS = 16;

let home;
let port;
let clients = [];
before(async () => { home = await Home.open(); });
afterEach(async () => {
  for (const client of clients) client.disconnect();
  clients = [];
  await home.clear();
});
after(() => home.close());

// PM2's own client leaves out what PM2 does not know, so musher's starts the app.
async function start(options) {
  port = await freePort();
  const described = {
    script: app('socketio.cjs'), name: 'chat', instances: WORKERS, exec_mode: 'cluster', wait_ready: true,
    listen_timeout: 20_000, env: { PORT: String(port) }, ...options,
  };
  const path = join(home.dir, 'sticky.json');
  writeFileSync(path, JSON.stringify({ apps: [described] }));
  const ran = home.musher('start', path);
  if (ran.code !== 0) throw new Error(ran.out + ran.err);
  await home.status('chat', 'online', WORKERS);
}

// Every request has a connection of its own: nothing but musher keeps them together.
function connect(transports, more = {}) {
  const client = io(`http://127.0.0.1:${port}`, {
    transports, forceNew: true, reconnection: false, agent: new Agent({ keepAlive: false }), ...more,
  });
  clients.push(client);
  return new Promise((resolve, reject) => {
    client.on('connect', () => resolve(client)).on('connect_error', reject);
  });
}

const who = (client) => client.timeout(10_000).emitWithAck('who');

const KINDS = { 'polling then websocket': ['polling', 'websocket'], polling: ['polling'], websocket: ['websocket'] };

for (const [name, transports] of Object.entries(KINDS)) {
  test(`sticky sid: ${name} stays with one worker and all workers serve`, async () => {
    await start({ sticky: 'sid' });
    // One after the other: in a burst a worker that is busy is passed over.
    const all = [];
    while (all.length < CLIENTS) all.push(await connect(transports));
    const servers = await Promise.all(all.map(who));
    for (let round = 0; round < 3; round += 1) assert.deepEqual(await Promise.all(all.map(who)), servers);
    assert.equal(new Set(servers).size, WORKERS);
    if (transports.length === 2) {
      const upgraded = (client) => client.io.engine.transport.name === 'websocket' || new Promise((resolve) => {
        client.io.engine.once('upgrade', () => resolve(true));
      });
      await Promise.all(all.map(upgraded));
    }
  });
}

test('sticky ip: one address has one worker', async () => {
  await start({ sticky: 'ip' });
  const all = await Promise.all(Array.from({ length: 6 }, () => connect(['polling', 'websocket'])));
  assert.equal(new Set(await Promise.all(all.map(who))).size, 1);
});

test('without sticky a session is lost between the workers', async () => {
  await start({});
  const tries = Array.from({ length: 8 }, () => connect(['polling']).then(who));
  const results = await Promise.allSettled(tries);
  assert.ok(results.some((result) => result.status === 'rejected'));
});

test('what one worker emits reaches the clients of all', async () => {
  await start({ sticky: 'sid' });
  const all = await Promise.all(Array.from({ length: CLIENTS }, () => connect(['polling'])));
  const told = all.map((client) => new Promise((resolve) => { client.on('told', resolve); }));
  all[0].emit('tell all', 'hello');
  assert.deepEqual(await Promise.all(told), all.map(() => 'hello'));
});

test('after a reload clients come back and stay', async () => {
  await start({ sticky: 'sid', reload: { drain: 200 } });
  const options = { reconnection: true, reconnectionDelay: 100 };
  const all = await Promise.all(Array.from({ length: 8 }, () => connect(['polling', 'websocket'], options)));
  const before = new Set((await home.list('chat')).map((one) => one.pid));
  await home.call('reload', 'chat');
  const back = async (client) => {
    for (;;) {
      const server = await who(client).catch(() => undefined);
      if (server && !before.has(server)) return server;
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  };
  const servers = await Promise.all(all.map(back));
  assert.deepEqual(await Promise.all(all.map(who)), servers);
});

test('what cannot be is said', async () => {
  await assert.rejects(start({ sticky: 'sid', balance: 'even' }), /`sticky` hands connections over/);
  // With its place in the file: nothing is sent to the daemon.
  await assert.rejects(start({ sticky: 'session' }), /sticky\.json:\d+:\d+: error: .*ip, sid, cookie/);
});
