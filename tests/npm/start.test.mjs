// Every way of the API to start something, judged by the processes it made.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { Home, app } from './support/home.mjs';
import { commandLine, isAlive, until, variable } from './support/processes.mjs';

let home;
before(async () => { home = await Home.open(); });
afterEach(() => home.clear());
after(() => home.close());

test('the client connects, pings and reads the version it compares with', async () => {
  assert.deepEqual(await home.call('ping'), { msg: 'pong' });
  assert.equal(await home.call('getVersion'), '7.0.4');
  assert.ok(isAlive(home.daemon()) && isAlive(home.keeper));
});

test('a script path starts one process in fork mode', async () => {
  const result = await home.call('start', app('steady.js'));
  assert.equal(result.length, 1);
  const [record] = result;
  assert.ok(isAlive(record.process.pid));
  assert.equal(record.pm2_env.name, 'steady');
  assert.equal(record.pm2_env.pm_exec_path, app('steady.js'));
  const [process] = await home.status('steady', 'online');
  assert.equal(process.pid, record.process.pid);
  assert.equal(process.pm_id, 0);
  assert.equal(process.pm2_env.exec_mode, 'fork_mode');
  assert.equal(readFileSync(process.pm2_env.pm_pid_path, 'utf8').trim(), String(process.pid));
  assert.equal((await home.facts(process)).worker, false);
});

test('an options object sets name, args, env, cwd, namespace and log files', async () => {
  const out = join(home.dir, 'mine-out.log');
  await home.call('start', {
    script: app('steady.js'), name: 'full', namespace: 'shop', args: ['--a', 'b c'],
    env: { COLOR: 'red' }, cwd: home.dir, out_file: out, error_file: join(home.dir, 'mine-err.log'),
    merge_logs: true, kill_timeout: 900, max_memory_restart: '900M', autorestart: false,
  });
  const [process] = await home.status('full', 'online');
  const facts = await home.facts(process);
  assert.deepEqual(facts.args, ['--a', 'b c']);
  assert.equal(facts.color, 'red');
  assert.equal(facts.cwd, realpathSync(home.dir));
  assert.equal(facts.name, 'full');
  assert.equal(process.pm2_env.namespace, 'shop');
  assert.equal(process.pm2_env.pm_out_log_path, out);
  assert.equal(process.pm2_env.env.COLOR, 'red');
  assert.equal(process.pm2_env.COLOR, 'red');
  assert.deepEqual(process.pm2_env.args, ['--a', 'b c']);
  assert.equal(process.pm2_env.kill_timeout, 900);
  assert.equal(process.pm2_env.max_memory_restart, 900 * 1024 * 1024);
  assert.equal(process.pm2_env.autorestart, false);
  assert.equal(variable(process.pid, 'COLOR'), 'red');
});

test('args as one text are split at blanks', async () => {
  await home.call('start', { script: app('steady.js'), args: 'a "b c"' });
  const [process] = await home.status('steady', 'online');
  assert.deepEqual((await home.facts(process)).args, ['a', 'b c']);
});

test('an array of apps starts each', async () => {
  const result = await home.call('start', [
    { script: app('steady.js'), name: 'one' },
    { script: app('steady.js'), name: 'two', env: { COLOR: 'blue' } },
  ]);
  assert.deepEqual(result.map((one) => one.pm2_env.name).sort(), ['one', 'two']);
  const [two] = await home.status('two', 'online');
  assert.equal((await home.facts(two)).color, 'blue');
  assert.equal((await home.status('one', 'online')).length, 1);
});

test('a config file starts its apps, and starting it again restarts them', async () => {
  const file = join(home.dir, 'eco.config.js');
  const apps = [
    { script: app('steady.js'), name: 'web', instances: 2, exec_mode: 'cluster' },
    { script: app('steady.js'), name: 'job', env: { COLOR: 'green' } },
  ];
  writeFileSync(file, `module.exports = { apps: ${JSON.stringify(apps)} };`);
  assert.equal((await home.call('start', file)).length, 3);
  await home.status('web', 'online', 2);
  const [job] = await home.status('job', 'online');
  await home.call('start', file);
  const [again] = await home.status('job', 'online');
  assert.notEqual(again.pid, job.pid);
  assert.equal(again.pm2_env.restart_time, 1);
  assert.equal((await home.list()).length, 3);
});

test('a JSON file starts its apps', async () => {
  const file = join(home.dir, 'process.json');
  writeFileSync(file, JSON.stringify({ apps: [{ script: app('steady.js'), name: 'json' }] }));
  await home.call('start', file);
  await home.status('json', 'online');
});

test('two instances in cluster mode are numbered workers with one log each', async () => {
  const result = await home.call('start', { script: app('steady.js'), name: 'w', instances: 2, exec_mode: 'cluster' });
  assert.equal(result.length, 2);
  const list = await home.status('w', 'online', 2);
  for (const [index, process] of list.entries()) {
    const facts = await home.facts(process);
    assert.equal(facts.worker, true);
    assert.equal(facts.instance, String(index));
    assert.strictEqual(process.pm2_env.NODE_APP_INSTANCE, index);
    assert.equal(process.pm2_env.exec_mode, 'cluster_mode');
    assert.equal(process.pm2_env.pm_out_log_path, join(home.dir, `logs/w-out-${process.pm_id}.log`));
    assert.equal(process.pm2_env.pm_pid_path, join(home.dir, `pids/w-${process.pm_id}.pid`));
  }
  assert.equal(list[0].pm2_env.unique_id, list[1].pm2_env.unique_id);
});

test('two instances in fork mode share nothing but the name', async () => {
  await home.call('start', { script: app('steady.js'), name: 'f', instances: 2, exec_mode: 'fork' });
  const list = await home.status('f', 'online', 2);
  assert.deepEqual(list.map((one) => one.pm2_env.NODE_APP_INSTANCE), [0, 1]);
  assert.equal((await home.facts(list[1])).worker, false);
});

test('instances max are as many as the processors', async () => {
  await home.call('start', { script: app('steady.js'), name: 'm', instances: 'max' });
  await home.status('m', 'online', availableParallelism());
});

const INTERPRETERS = [
  ['python by extension', { script: app('steady.py') }, /^python \['x'\] red$/m],
  ['python by name', { script: app('steady.py'), interpreter: 'python3' }, /^python \['x'\] red$/m],
  ['bash by extension', { script: app('steady.sh') }, /^bash x red$/m],
  ['none runs the file itself', { script: app('direct'), interpreter: 'none' }, /^direct x red$/m],
];
for (const [what, options, expected] of INTERPRETERS) {
  test(`interpreter: ${what}`, async () => {
    // A name of its own: the log of the one before must not answer for it.
    const name = what.replaceAll(' ', '-');
    await home.call('start', { name, args: ['x'], env: { COLOR: 'red' }, ...options });
    const [process] = await home.status(name, 'online');
    assert.match(await home.holds(process.pm2_env.pm_out_log_path, 'red'), expected);
    assert.ok(isAlive(process.pid));
    assert.equal(process.pm2_env.exec_mode, 'fork_mode');
  });
}

test('node_args stand before the script', async () => {
  await home.call('start', { script: app('steady.js'), node_args: ['--no-warnings'] });
  const [process] = await home.status('steady', 'online');
  assert.deepEqual(process.pm2_env.node_args, ['--no-warnings']);
  const words = commandLine(process.pid);
  assert.ok(words.indexOf('--no-warnings') > 0);
  assert.ok(words.indexOf('--no-warnings') < words.findIndex((word) => word.endsWith('.js')), `${words}`);
});

test('wait_ready is answered when the app says ready', async () => {
  const script = join(home.dir, 'slow.js');
  writeFileSync(script, "setTimeout(() => process.send('ready'), 300); setInterval(() => {}, 1e6);");
  const began = Date.now();
  await home.call('start', { script, name: 'slow', wait_ready: true, listen_timeout: 8000 });
  const took = Date.now() - began;
  assert.ok(took >= 300 && took < 6000, `${took} ms`);
  await home.status('slow', 'online');
});

test('an app that crashes at once ends errored with its counters', async () => {
  await home.call('start', { script: app('crash.js'), name: 'bad', max_restarts: 2 });
  const [process] = await home.status('bad', 'errored');
  assert.equal(process.pid, 0);
  assert.equal(process.pm2_env.exit_code, 3);
  assert.equal(process.pm2_env.restart_time, 1);
});

test('an app that dies is replaced and the restart counted', async () => {
  await home.call('start', app('steady.js'));
  const [old] = await home.status('steady', 'online');
  process.kill(old.pid, 'SIGKILL');
  const fresh = await until('a replacement', async () => {
    const [one] = await home.list('steady');
    return one.pid !== old.pid && isAlive(one.pid) && one.pm2_env.status === 'online' && one;
  });
  assert.equal(fresh.pm2_env.restart_time, 1);
  assert.equal(fresh.pm_id, old.pm_id);
});

test('autostart false only registers', async () => {
  await home.call('start', { script: app('steady.js'), name: 'later', autostart: false });
  const [process] = await home.status('later', 'stopped');
  assert.ok(!process.pid);
  await home.call('restart', 'later');
  const [started] = await home.status('later', 'online');
  assert.ok(isAlive(started.pid));
  assert.ok(existsSync(started.pm2_env.pm_pid_path));
});
