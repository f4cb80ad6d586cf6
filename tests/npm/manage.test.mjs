// What the API does to processes that exist: every verb against real pids.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { Home, app, freePort } from './support/home.mjs';
import { allGone, isAlive, until, variable } from './support/processes.mjs';

let home;
before(async () => { home = await Home.open(); });
afterEach(() => home.clear());
after(() => home.close());

async function start(options = {}) {
  await home.call('start', { script: app('steady.js'), ...options });
  return home.status(options.name ?? 'steady', 'online', options.instances ?? 1);
}

test('stop ends the process and keeps its slot', async () => {
  const [{ pid }] = await start();
  const result = await home.call('stop', 'steady');
  assert.ok(!isAlive(pid));
  assert.equal(result.length, 1);
  const { pm2_env: env, ...rest } = result[0];
  assert.deepEqual(rest, { name: 'steady', namespace: 'default', pm_id: 0, status: 'stopped', restart_time: 0 });
  assert.equal(env.status, 'stopped');
  const [slot] = await home.list();
  assert.deepEqual([slot.pid, slot.pm2_env.status, slot.pm2_env.restart_time], [0, 'stopped', 0]);
  assert.ok(!existsSync(slot.pm2_env.pm_pid_path));
  await home.call('stop', 'steady');
});

test('stop ends children of the app as well', async () => {
  const script = join(home.dir, 'parent.js');
  writeFileSync(script, `const c = require('child_process').spawn('sleep', ['3600']);
    console.log('child ' + c.pid); setInterval(() => {}, 1e6);`);
  const [parent] = await start({ script, name: 'parent' });
  const text = await home.holds(parent.pm2_env.pm_out_log_path, 'child');
  const child = Number(text.match(/child (\d+)/)[1]);
  assert.ok(isAlive(child));
  await home.call('stop', 0);
  await allGone([child, parent.pid]);
});

test('restart of an online process counts, of a stopped one does not', async () => {
  const [first] = await start();
  const [reply] = await home.call('restart', 'steady');
  assert.equal(reply.pm_id, 0);
  const [second] = await home.status('steady', 'online');
  assert.ok(!isAlive(first.pid) && isAlive(second.pid));
  assert.equal(second.pm2_env.restart_time, 1);
  assert.ok(second.pm2_env.pm_uptime >= first.pm2_env.pm_uptime);
  await home.call('stop', 'steady');
  await home.call('restart', 'steady');
  const [third] = await home.status('steady', 'online');
  assert.equal(third.pm2_env.restart_time, 1);
  assert.ok(isAlive(third.pid));
});

test('restart by id, name, namespace and all reaches the same processes', async () => {
  const [{ pm_id: id }] = await start({ namespace: 'space' });
  for (const [n, target] of [id, String(id), 'steady', 'space', 'all'].entries()) {
    await home.call('restart', target);
    const [process] = await home.status('steady', 'online');
    assert.equal(process.pm2_env.restart_time, n + 1, `target ${target}`);
  }
});

test('restart keeps the environment unless it is told to update it', async () => {
  await start({ env: { COLOR: 'red', KEPT: 'yes' } });
  process.env.COLOR = 'green';
  try {
    await home.call('restart', 'steady');
    let [one] = await home.status('steady', 'online');
    assert.equal(variable(one.pid, 'COLOR'), 'red');
    await home.call('restart', 'steady', { updateEnv: true });
    [one] = await home.status('steady', 'online');
    assert.equal(variable(one.pid, 'COLOR'), 'green');
    assert.equal(variable(one.pid, 'KEPT'), 'yes');
    assert.equal(one.pm2_env.COLOR, 'green');
    assert.equal(one.pm2_env.env.COLOR, 'green');
  } finally {
    delete process.env.COLOR;
  }
});

test('restarting a config merges its env and attributes', async () => {
  await start({ env: { COLOR: 'red', KEPT: 'yes' } });
  const config = { script: app('steady.js'), name: 'steady', env: { COLOR: 'blue' }, kill_timeout: 777 };
  await home.call('restart', { apps: [config] });
  const [one] = await home.status('steady', 'online');
  assert.equal(variable(one.pid, 'COLOR'), 'blue');
  assert.equal(one.pm2_env.kill_timeout, 777);
  assert.equal(one.pm2_env.restart_time, 1);
});

test('starting a stopped app by its script starts the same slot', async () => {
  await start();
  await home.call('stop', 'steady');
  await home.call('start', app('steady.js'));
  const [one] = await home.status('steady', 'online');
  assert.deepEqual([one.pm_id, one.pm2_env.restart_time], [0, 0]);
  assert.ok(isAlive(one.pid));
});

test('delete ends the process and forgets it; an empty list counts from 0 again', async () => {
  const [a] = await start({ name: 'a' });
  const [b] = await start({ name: 'b' });
  assert.equal(b.pm_id, 1);
  const result = await home.call('delete', 'a');
  assert.equal(result[0].name, 'a');
  assert.ok(!isAlive(a.pid) && isAlive(b.pid));
  assert.deepEqual((await home.list()).map((one) => one.name), ['b']);
  await home.call('delete', 'all');
  assert.deepEqual(await home.list(), []);
  const [c] = await start({ name: 'c' });
  assert.equal(c.pm_id, 0);
});

/// Sends requests without pause until told to stop; returns what went wrong.
function load(port, agent) {
  const failures = [];
  const pids = new Map();
  let isOver = false;
  const one = () => new Promise((resolve) => {
    const request = http.get({ port, host: '127.0.0.1', agent, timeout: 5000 }, (response) => {
      let body = '';
      response.on('data', (piece) => { body += piece; });
      response.on('end', () => {
        const { pid } = JSON.parse(body);
        pids.set(pid, (pids.get(pid) ?? 0) + 1);
        resolve();
      });
      response.on('error', (error) => { failures.push(error.message); resolve(); });
    });
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', (error) => { failures.push(`${error.code} ${error.message}`); resolve(); });
  });
  const done = (async () => { while (!isOver) await one(); })();
  return { failures, pids, end: () => { isOver = true; return done; } };
}

test('reload replaces every worker and no request fails', async () => {
  const port = await freePort();
  const options = { script: app('http.js'), name: 'http', instances: 2, exec_mode: 'cluster', env: { PORT: port }, wait_ready: true, kill_timeout: 8000 };
  const before = await start(options);
  const agents = [new http.Agent({ keepAlive: true }), new http.Agent({ keepAlive: true }), new http.Agent({ keepAlive: false })];
  const loads = agents.map((agent) => load(port, agent));
  const isBusy = () => loads.every((one) => [...one.pids.values()].reduce((a, b) => a + b, 0) > 20);
  await until('the load is on', isBusy);
  const result = await home.call('reload', 'http');
  assert.equal(result.length, 2);
  const fresh = await home.status('http', 'online', 2);
  const news = fresh.map((one) => one.pid);
  await until('the new workers answer', () => loads.every((one) => news.some((pid) => one.pids.has(pid))));
  await Promise.all(loads.map((one) => one.end()));
  for (const agent of agents) agent.destroy();
  assert.deepEqual(loads.map((one) => one.failures), [[], [], []]);
  assert.deepEqual(fresh.map((one) => one.pm_id), before.map((one) => one.pm_id));
  assert.deepEqual(fresh.map((one) => one.pm2_env.restart_time), [1, 1]);
  assert.deepEqual(fresh.map((one) => one.pm2_env.NODE_APP_INSTANCE), [0, 1]);
  for (const { pid } of before) assert.ok(!news.includes(pid) && !isAlive(pid));
});

test('reload of a fork mode process restarts it', async () => {
  const [old] = await start();
  await home.call('reload', 'steady');
  const [fresh] = await home.status('steady', 'online');
  assert.ok(!isAlive(old.pid) && isAlive(fresh.pid));
  assert.equal(fresh.pm2_env.restart_time, 1);
});

test('scale goes to a number, by a number, and down from the lowest id', async () => {
  const first = await start({ name: 's', instances: 1, exec_mode: 'cluster' });
  await home.call('scale', 's', 3);
  const three = await home.status('s', 'online', 3);
  assert.deepEqual(three.map((one) => one.pm2_env.NODE_APP_INSTANCE), [0, 1, 2]);
  assert.equal(new Set(three.map((one) => one.pm2_env.unique_id)).size, 1);
  assert.equal(new Set(three.map((one) => one.pm2_env.pm_out_log_path)).size, 3);
  await home.call('scale', 's', '+1');
  const four = await home.status('s', 'online', 4);
  await home.call('scale', 's', 1);
  const [last] = await home.status('s', 'online', 1);
  assert.equal(last.pm_id, four[3].pm_id);
  assert.ok(isAlive(last.pid) && !isAlive(first[0].pid));
});

test('sendSignalToProcessName and Id reach the main process', async () => {
  const script = join(home.dir, 'signal.js');
  writeFileSync(script, "process.on('SIGUSR1', () => console.log('usr1')); process.on('SIGHUP', () => console.log('hup')); console.log('up'); setInterval(() => {}, 1e6);");
  const [one] = await start({ script, name: 'sig' });
  await home.holds(one.pm2_env.pm_out_log_path, 'up');
  await home.call('sendSignalToProcessName', 'SIGUSR1', 'sig');
  await home.holds(one.pm2_env.pm_out_log_path, 'usr1');
  await home.call('sendSignalToProcessId', 'SIGHUP', one.pm_id);
  await home.holds(one.pm2_env.pm_out_log_path, 'hup');
  assert.ok(isAlive(one.pid));
});

test('a line sent to stdin arrives', async () => {
  const script = join(home.dir, 'stdin.js');
  writeFileSync(script, "process.stdin.on('data', (data) => console.log('read ' + data));");
  const [one] = await start({ script, name: 'in' });
  await home.call('sendLineToStdin', one.pm_id, 'hello', '\n');
  await home.holds(one.pm2_env.pm_out_log_path, 'read hello');
});

test('reset puts the counters back', async () => {
  await start();
  await home.call('restart', 'steady');
  assert.equal((await home.list())[0].pm2_env.restart_time, 1);
  await home.call('reset', 'steady');
  const [one] = await home.list();
  assert.equal(one.pm2_env.restart_time, 0);
  assert.ok(isAlive(one.pid));
});

test('flush empties the log files, which go on', async () => {
  const [one] = await start();
  const path = one.pm2_env.pm_out_log_path;
  await home.holds(path, 'facts');
  await home.call('flush', 'steady');
  assert.equal(statSync(path).size, 0);
  await home.call('restart', 'steady');
  await home.holds(path, 'facts');
});

test('reloadLogs opens a moved log file again', async () => {
  const [one] = await start();
  const path = one.pm2_env.pm_out_log_path;
  await home.holds(path, 'facts');
  renameSync(path, `${path}.1`);
  await home.call('reloadLogs');
  const message = { id: one.pm_id, topic: 'print', type: 'process:msg', data: { out: 'after', err: 'after' } };
  await home.call('sendDataToProcessId', message);
  await home.holds(path, 'after');
  assert.ok(!readFileSync(`${path}.1`, 'utf8').includes('after'));
});

test('dump and resurrect bring the list back, stopped ones stopped', async () => {
  await start({ name: 'a', env: { COLOR: 'red' } });
  await start({ name: 'b', instances: 2, exec_mode: 'cluster' });
  await start({ name: 'c' });
  await home.call('stop', 'c');
  await home.call('restart', 'a');
  await home.call('dump');
  const saved = JSON.parse(readFileSync(join(home.dir, 'dump.pm2'), 'utf8'));
  assert.equal(saved.length, 4);
  assert.ok(saved.every((one) => !('instances' in one) && !('pm_id' in one)));
  const pids = (await home.list()).map((one) => one.pid).filter(Boolean);
  await home.call('delete', 'all');
  await allGone(pids);
  await home.call('resurrect');
  const [a] = await home.status('a', 'online');
  assert.equal(a.pm2_env.restart_time, 0);
  assert.equal(variable(a.pid, 'COLOR'), 'red');
  const b = await home.status('b', 'online', 2);
  assert.deepEqual(b.map((one) => one.pm2_env.NODE_APP_INSTANCE).sort(), [0, 1]);
  assert.ok(b.every((one) => one.pm2_env.exec_mode === 'cluster_mode'));
  const [c] = await home.status('c', 'stopped');
  assert.ok(!c.pid);
});
