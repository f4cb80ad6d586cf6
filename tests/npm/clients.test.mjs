// Several clients, clients that leave early, and a daemon that ends.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { Home, app, call, freePort } from './support/home.mjs';
import { allGone, isAlive, until } from './support/processes.mjs';

let home;
before(async () => { home = await Home.open(); });
afterEach(() => home.clear());
after(() => home.close());

test('two clients see one list and each gets its own answers', async () => {
  const second = home.another();
  await call(second, 'connect');
  const names = ['a', 'b', 'c', 'd'];
  const starts = names.map((name, n) => call(n % 2 ? second : home.client, 'start', { script: app('steady.js'), name }));
  const results = await Promise.all(starts);
  assert.deepEqual(results.map(([one]) => one.pm2_env.name), names);
  const [mine, theirs] = await Promise.all([home.list(), call(second, 'list')]);
  assert.deepEqual(mine.map((one) => [one.pm_id, one.pid]), theirs.map((one) => [one.pm_id, one.pid]));
  assert.equal(mine.length, 4);
  await call(second, 'stop', 'a');
  await home.status('a', 'stopped');
  second.disconnect();
  assert.equal((await home.list()).length, 4);
});

test('many calls at once are all answered, each with its own', async () => {
  await home.call('start', app('steady.js'));
  const calls = Array.from({ length: 200 }, (_, n) => home.call('describe', n % 2 ? 0 : 'nobody').then((list) => list.length));
  assert.deepEqual(await Promise.all(calls), Array.from({ length: 200 }, (_, n) => n % 2));
});

test('a client that is killed in the middle of a start leaves the app running', async () => {
  const script = join(home.dir, 'late.js');
  writeFileSync(script, `const fs = require('fs'); const go = ${JSON.stringify(join(home.dir, 'go'))};
    const timer = setInterval(() => { if (fs.existsSync(go)) { clearInterval(timer); process.send('ready'); } }, 10);
    setInterval(() => {}, 1e6);`);
  const options = { script, name: 'late', wait_ready: true, listen_timeout: 30_000 };
  const pm2 = createRequire(import.meta.url).resolve('pm2');
  const source = `const pm2 = require(${JSON.stringify(pm2)});
    pm2.connect(() => pm2.start(${JSON.stringify(options)}, () => process.exit(0)));`;
  const client = spawn(process.execPath, ['-e', source], { stdio: 'ignore' });
  const left = once(client, 'exit');
  const one = await until('a process that is not ready', async () => {
    const [found] = await home.list('late');
    return found?.pid && found.pm2_env.status === 'launching' && found;
  });
  client.kill('SIGKILL');
  assert.deepEqual(await left, [null, 'SIGKILL']);
  assert.ok(isAlive(one.pid));
  writeFileSync(join(home.dir, 'go'), '');
  const [online] = await home.status('late', 'online');
  assert.equal(online.pid, one.pid);
  assert.equal(online.pm2_env.restart_time, 0);
});

test('a killed daemon is replaced: clients go on, pids and counters stay', async () => {
  const port = await freePort();
  await home.call('start', { script: app('http.js'), name: 'http', instances: 2, exec_mode: 'cluster', env: { PORT: port }, wait_ready: true });
  await home.call('start', { script: app('steady.js'), name: 'fork' });
  await home.call('start', { script: app('steady.js'), name: 'stopped' });
  await home.call('stop', 'stopped');
  await home.call('restart', 'fork');
  const facts = (list) => list.map((one) => [one.pm_id, one.name, one.pid, one.pm2_env.status, one.pm2_env.restart_time, one.pm2_env.pm_uptime, one.pm2_env.created_at, one.pm2_env.unique_id]);
  const before = facts(await home.list());
  const keeper = home.keeper;
  for (let round = 1; round <= 2; round += 1) {
    const old = home.daemon();
    process.kill(old, 'SIGKILL');
    await until('a daemon with another pid', () => existsSync(join(home.dir, 'pm2.pid')) && home.daemon() !== old && isAlive(home.daemon()));
    assert.deepEqual(facts(await home.list()), before);
    assert.ok(isAlive(keeper));
    const answer = await (await fetch(`http://127.0.0.1:${port}`)).json();
    assert.ok(before.some(([, , pid]) => pid === answer.pid));
  }
  // What was taken over can be managed as before.
  await home.call('reload', 'http');
  const fresh = await home.status('http', 'online', 2);
  assert.deepEqual(fresh.map((one) => one.pm2_env.restart_time), [1, 1]);
  const [fork] = await home.list('fork');
  await home.call('sendDataToProcessId', fork.pm_id, { type: 'process:msg', topic: 'print', data: { out: 'still heard', err: 'x' } });
  await home.holds(fork.pm2_env.pm_out_log_path, 'still heard');
  process.kill(fork.pid, 'SIGKILL');
  await until('the adopted app is replaced', async () => {
    const [one] = await home.list('fork');
    return one.pid !== fork.pid && one.pm2_env.status === 'online' && one.pm2_env.restart_time === 2;
  });
});

test('a call on its way when the daemon dies does not disturb later ones', async () => {
  await home.call('start', app('steady.js'));
  const [one] = await home.list();
  // PM2's client keeps no record of calls that were sent: this one may stay open.
  home.client.list(() => {});
  const old = home.daemon();
  process.kill(old, 'SIGKILL');
  await until('a new daemon', () => existsSync(join(home.dir, 'pm2.pid')) && home.daemon() !== old && isAlive(home.daemon()));
  const [same] = await home.list();
  assert.deepEqual([same.pid, same.pm2_env.restart_time], [one.pid, 0]);
});

test('killDaemon ends every app, the daemon and the keeper', async () => {
  await home.call('start', { script: app('steady.js'), name: 'w', instances: 2, exec_mode: 'cluster' });
  await home.call('start', { script: app('steady.py'), name: 'p' });
  const pids = (await home.list()).map((one) => one.pid);
  const managers = [home.daemon(), home.keeper];
  assert.equal(pids.length, 3);
  const pm2 = createRequire(import.meta.url).resolve('pm2');
  const source = `const pm2 = require(${JSON.stringify(pm2)});
    pm2.connect(() => pm2.killDaemon((error) => process.exit(error ? 1 : 0)));`;
  const client = spawn(process.execPath, ['-e', source], { stdio: 'ignore' });
  assert.deepEqual(await once(client, 'exit'), [0, null]);
  await allGone([...pids, ...managers]);
  assert.ok(!existsSync(join(home.dir, 'pm2.pid')));
  assert.ok(!(await home.answers()));
  assert.match(readFileSync(join(home.dir, 'pm2.log'), 'utf8'), /killed by user/);
  // A home can be used again, and counts from 0.
  home.start();
  // This client was not told of any of that.
  await home.call('start', app('steady.js'));
  assert.deepEqual((await home.list()).map((one) => one.pm_id), [0]);
});
