// What a client on the event bus hears: order, names and shapes.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { Home, app, call } from './support/home.mjs';
import { until } from './support/processes.mjs';

let home;
let bus;
let heard = [];
before(async () => {
  home = await Home.open();
  bus = await home.call('launchBus');
  bus.on('*', (name, payload) => heard.push({ name, payload }));
  // The bus has no history: what is told before it is connected is lost.
  await until('the bus is connected', async () => {
    if ((await home.list()).length === 0) await home.call('start', app('steady.js'));
    else await home.call('restart', 'steady');
    return heard.length > 0;
  });
  await home.clear();
});
beforeEach(() => { heard = []; });
afterEach(() => home.clear());
after(() => {
  // A bus connects again for ever.
  bus.close();
  return home.close();
});

const named = (name) => heard.filter((one) => one.name === name).map((one) => one.payload);
const hear = (name, is = () => true) => until(`${name} on the bus`, () => named(name).find(is));
const send = (pm_id, topic, data = {}) => home.call('sendDataToProcessId', { id: pm_id, type: 'process:msg', topic, data });

/// The part of PM2's order that is about processes, as short words.
function words() {
  return heard.flatMap(({ name, payload }) => {
    if (name === 'process:event') return [`${payload.event}(${payload.process.status})`];
    if (name === 'log:PM2') {
      const found = payload.data.match(/starting|online/);
      return found ? [`log ${found[0]}`] : [];
    }
    return [];
  });
}

async function start(options = {}) {
  await home.call('start', { script: app('steady.js'), ...options });
  await hear('process:event', (one) => one.event === 'start');
  return home.status(options.name ?? 'steady', 'online', options.instances ?? 1);
}

test('a start is told in PM2s order', async () => {
  await start();
  assert.deepEqual(words(), ['log starting', 'online(launching)', 'log online', 'start(online)']);
  const [online, begin] = named('process:event');
  assert.deepEqual(Object.keys(online), ['event', 'manually', 'process', 'at']);
  assert.equal(online.manually, false);
  assert.equal(begin.manually, true);
  assert.equal(online.process.name, 'steady');
  assert.equal(online.process.pm_id, 0);
  assert.ok(!('env' in online.process));
  assert.ok(Math.abs(Date.now() - online.at) < 60_000);
});

test('a stop is two exits and a stop', async () => {
  await start();
  heard = [];
  await home.call('stop', 'steady');
  const stop = await hear('process:event', (one) => one.event === 'stop');
  assert.deepEqual(words(), ['exit(stopping)', 'exit(stopped)', 'stop(stopped)']);
  assert.equal(stop.manually, true);
});

test('a restart and a reload are told', async () => {
  await start();
  await home.call('restart', 'steady');
  assert.equal((await hear('process:event', (one) => one.event === 'restart')).process.restart_time, 1);
  await home.call('reload', 'steady');
  await hear('process:event', (one) => one.event === 'reload');
});

test('too many crashes end in restart overlimit', async () => {
  await home.call('start', { script: app('crash.js'), name: 'bad', max_restarts: 2 });
  const event = await hear('process:event', (one) => one.event === 'restart overlimit');
  assert.equal(event.process.status, 'errored');
  assert.equal(event.process.name, 'bad');
});

for (const mode of ['fork', 'cluster']) {
  test(`output of a ${mode} mode app is on the bus as in its log files`, async () => {
    const [one] = await start({ name: 'logs', exec_mode: mode, instances: 1 });
    await hear('log:out', (packet) => packet.data.includes('facts'));
    heard = [];
    await send(one.pm_id, 'print', { out: 'to the out log', err: 'to the err log' });
    for (const [name, text] of [['log:out', 'to the out log\n'], ['log:err', 'to the err log\n']]) {
      const packet = await hear(name, (candidate) => candidate.data === text);
      const keys = mode === 'fork' ? ['process', 'at', 'data'] : ['at', 'data', 'process'];
      assert.deepEqual(Object.keys(packet), keys);
      assert.deepEqual(packet.process, { pm_id: one.pm_id, name: 'logs', rev: null, namespace: 'default' });
      assert.equal(typeof packet.at, 'number');
    }
    await home.holds(one.pm2_env.pm_out_log_path, 'to the out log\n');
    await home.holds(one.pm2_env.pm_err_log_path, 'to the err log\n');
  });

  test(`data sent to a ${mode} mode app arrives and is answered by an event`, async () => {
    const [one] = await start({ name: 'echo', exec_mode: mode, instances: 1 });
    const packet = { id: one.pm_id, type: 'process:msg', topic: 'echo', data: { n: 1, deep: ['ä', null] } };
    const result = await home.call('sendDataToProcessId', one.pm_id, { type: packet.type, topic: packet.topic, data: packet.data });
    assert.equal(result.success, true);
    const answer = await hear('echo:answer');
    assert.deepEqual(Object.keys(answer), ['at', 'data', 'process']);
    assert.deepEqual(answer.data, { got: packet, pid: one.pid });
    assert.equal(answer.process.pm_id, one.pm_id);
    assert.equal(answer.process.name, 'echo');
    assert.equal(answer.process.namespace, 'default');
  });

  test(`messages of a ${mode} mode app without type and data are process:msg`, async () => {
    const [one] = await start({ name: 'say', exec_mode: mode, instances: 1 });
    for (const raw of ['plain text', { some: 'object' }, { type: 'x', data: 0 }, 42]) {
      heard = [];
      await send(one.pm_id, 'say', { raw });
      const event = await hear('process:msg');
      assert.deepEqual(event.raw, raw);
      assert.deepEqual(event.process, { pm_id: one.pm_id, name: 'say', namespace: 'default' });
    }
    heard = [];
    await send(one.pm_id, 'say', { raw: { type: 'process:msg', data: { a: 1 } } });
    assert.deepEqual((await hear('process:msg')).data, { a: 1 });
  });
}

test('an event of an app reaches handlers of its pattern', async () => {
  const [one] = await start();
  const caught = [];
  bus.on('shop:*', (what, payload) => caught.push([what, payload.data]));
  await send(one.pm_id, 'say', { raw: { type: 'shop:sale', data: { price: 3 } } });
  await until('the pattern matches', () => caught.length > 0);
  assert.deepEqual(caught, [['sale', { price: 3 }]]);
});

test('a signal by name reaches the app, which says so', async () => {
  const [one] = await start();
  await hear('log:out');
  await home.call('sendSignalToProcessName', 'SIGUSR2', 'steady');
  assert.equal((await hear('got:signal')).data.pid, one.pid);
});

test('a registered action is listed, triggered and answered', async () => {
  const [one] = await start({ env: { ACTION: '1' } });
  const knows = async () => (await home.list('steady'))[0].pm2_env.axm_actions.some((action) => action.action_name === 'sum');
  await until('the action is listed', knows);
  const replies = await home.call('trigger', one.pm_id, 'sum', '20 22');
  assert.equal(JSON.stringify(replies).includes('20 22'), true, JSON.stringify(replies));
  const reply = await hear('axm:reply');
  assert.deepEqual(reply.data.return, { sum: '20 22' });
  assert.equal(reply.data.action_name, 'sum');
  assert.equal(reply.process.pm_id, one.pm_id);
});

test('metrics and options of an app are in its record and not on the bus', async () => {
  const [one] = await start();
  const metric = { value: 7, unit: 'req', type: 'metric', historic: true };
  await send(one.pm_id, 'say', { raw: { type: 'axm:monitor', data: { Requests: metric } } });
  await send(one.pm_id, 'say', { raw: { type: 'axm:option:configuration', data: { custom: true } } });
  const env = await until('the record has both', async () => {
    const [{ pm2_env: found }] = await home.list('steady');
    return found.axm_monitor.Requests && found.axm_options.custom && found;
  });
  assert.deepEqual(env.axm_monitor.Requests, metric);
  await send(one.pm_id, 'say', { raw: 'last' });
  await hear('process:msg', (event) => event.raw === 'last');
  assert.deepEqual(named('axm:monitor'), []);
  assert.deepEqual(named('axm:option:configuration'), []);
});

test('an uncaught exception of an app ends it with its text in the err log', async () => {
  const script = join(home.dir, 'throws.js');
  writeFileSync(script, "setTimeout(() => { throw new Error('boom'); }, 20);");
  await home.call('start', { script, name: 'throws', autorestart: false });
  const exit = await hear('process:event', (one) => one.event === 'exit');
  assert.equal(exit.process.name, 'throws');
  const [one] = await home.status('throws', 'stopped');
  assert.equal(one.pm2_env.exit_code, 1);
  await home.holds(one.pm2_env.pm_err_log_path, 'Error: boom');
});

test('two readers of the bus both hear everything', async () => {
  const second = home.another();
  await call(second, 'connect');
  const other = [];
  const otherBus = await call(second, 'launchBus');
  otherBus.on('*', (name, payload) => other.push({ name, payload }));
  await until('the second reader hears', async () => {
    const [one] = await home.list();
    if (!one) await home.call('start', app('steady.js'));
    else await send(one.pm_id, 'say', { raw: 'knock' });
    return other.some((event) => event.name === 'process:msg');
  });
  const [one] = await home.list();
  await send(one.pm_id, 'say', { raw: 'both' });
  await hear('process:msg', (event) => event.raw === 'both');
  await until('the second hears the same', () => other.some((event) => event.payload.raw === 'both'));
  second.disconnect();
  await home.call('restart', 'steady');
  await hear('process:event', (event) => event.event === 'restart');
});
