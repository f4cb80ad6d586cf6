// PM2's own command line as a client of musher's daemon.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { Home, app } from './support/home.mjs';
import { isAlive, variable } from './support/processes.mjs';

let home;
before(async () => { home = await Home.open(); });
afterEach(() => home.clear());
after(() => home.close());

function ok(...args) {
  const ran = home.pm2(...args);
  assert.equal(ran.code, 0, `pm2 ${args.join(' ')}\n${ran.out}\n${ran.err}`);
  assert.doesNotMatch(ran.out, /out-of-date/);
  return ran.out;
}

test('jlist is the list as JSON, prettylist shows it, ls draws it', async () => {
  await home.call('start', { script: app('steady.js'), name: 'shown', instances: 2, exec_mode: 'cluster' });
  const list = JSON.parse(ok('jlist'));
  assert.deepEqual(list.map((one) => one.pid), (await home.list()).map((one) => one.pid));
  const pretty = ok('prettylist');
  assert.equal(pretty.match(/status: 'online'/g).length, 2);
  assert.equal(pretty.match(/restart_time: 0/g).length, 2);
  const table = ok('ls');
  assert.equal(table.match(/shown/g).length, 2);
  assert.equal(table.match(/│ cluster /g).length, 2, table);
  assert.equal(table.match(/online/g).length, 2);
  for (const { pid } of list) assert.ok(table.includes(String(pid)));
});

test('describe shows paths, interpreter and mode', async () => {
  await home.call('start', { script: app('steady.js'), name: 'shown', args: ['--x'] });
  const text = ok('describe', 'shown');
  assert.match(text, /Describing process with id 0 - name shown/);
  for (const part of [/status +│ online/, /script args +│ --x/, /interpreter +│ node/, /exec mode +│ fork_mode/, /restarts +│ 0/]) assert.match(text, part);
  assert.ok(text.includes(app('steady.js')));
});

test('logs prints the last lines of both files', async () => {
  await home.call('start', { script: app('steady.js'), name: 'shown' });
  const [one] = await home.list();
  await home.holds(one.pm2_env.pm_err_log_path, 'to stderr');
  const text = ok('logs', '--nostream', '--lines', '3');
  assert.match(text, /0\|shown +\| facts/);
  assert.match(text, /0\|shown +\| to stderr/);
});

test('start, restart, scale, stop and delete do what they say', async () => {
  ok('start', app('steady.js'), '--name', 'cli', '-i', '1', '--', 'arg');
  const [first] = await home.status('cli', 'online');
  assert.deepEqual(first.pm2_env.args, ['arg']);
  assert.equal(first.pm2_env.exec_mode, 'cluster_mode');
  ok('restart', 'cli', '--update-env');
  const [second] = await home.status('cli', 'online');
  assert.equal(second.pm2_env.restart_time, 1);
  assert.ok(!isAlive(first.pid) && isAlive(second.pid));
  assert.equal(variable(second.pid, 'PM2_USAGE'), 'CLI');
  ok('reload', 'cli');
  assert.equal((await home.status('cli', 'online'))[0].pm2_env.restart_time, 2);
  ok('scale', 'cli', '2');
  await home.status('cli', 'online', 2);
  ok('stop', 'cli');
  await home.status('cli', 'stopped', 2);
  ok('delete', 'cli');
  assert.deepEqual(await home.list(), []);
});

test('an unknown target is an error with exit code 1', () => {
  const byName = home.pm2('restart', 'nobody');
  assert.equal(byName.code, 1);
  assert.match(byName.err, /Process or Namespace nobody not found/);
  const byId = home.pm2('stop', '77');
  assert.equal(byId.code, 1);
  assert.match(byId.out + byId.err, /77 : id unknown/);
});

test('ping, pid, id and env answer', async () => {
  await home.call('start', { script: app('steady.js'), name: 'shown', env: { COLOR: 'red' } });
  const [one] = await home.list();
  assert.match(ok('ping'), /msg: 'pong'/);
  assert.equal(ok('pid', 'shown').trim(), String(one.pid));
  assert.equal(ok('id', 'shown').trim(), '[ 0 ]');
  assert.match(ok('env', '0'), /COLOR: red/);
});
