// The records clients read: every key they rely on, with its type.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { Home, app } from './support/home.mjs';
import { isAlive, until } from './support/processes.mjs';

let home;
before(async () => { home = await Home.open(); });
afterEach(() => home.clear());
after(() => home.close());

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isPath = (value) => typeof value === 'string' && value.startsWith('/');
const isText = (value) => typeof value === 'string' && value !== '';
const isMoment = (value) => Number.isInteger(value) && Math.abs(Date.now() - value) < 60_000;
const isFlag = (value) => typeof value === 'boolean';
const isCount = (value) => Number.isInteger(value) && value >= 0;

const KEYS = {
  name: isText,
  namespace: (value) => value === 'default',
  env: isObject,
  node_args: Array.isArray,
  args: (value) => Array.isArray(value) && value[0] === 'x',
  pm_id: isCount,
  status: (value) => value === 'online',
  exec_mode: (value) => value === 'fork_mode' || value === 'cluster_mode',
  exec_interpreter: (value) => value === 'node',
  pm_exec_path: (value) => value === app('steady.js'),
  pm_cwd: isPath,
  pm_out_log_path: isPath,
  pm_err_log_path: isPath,
  pm_pid_path: isPath,
  instances: isCount,
  instance_var: (value) => value === 'NODE_APP_INSTANCE',
  NODE_APP_INSTANCE: isCount,
  restart_time: (value) => value === 0,
  unstable_restarts: (value) => value === 0,
  pm_uptime: isMoment,
  created_at: isMoment,
  unique_id: (value) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value),
  version: (value) => value === 'N/A' || /^\d+\./.test(value),
  axm_actions: Array.isArray,
  axm_monitor: isObject,
  axm_options: isObject,
  axm_dynamic: isObject,
  autorestart: isFlag,
  autostart: isFlag,
  vizion: isFlag,
  vizion_running: isFlag,
  treekill: isFlag,
  pmx: isFlag,
  automation: isFlag,
  windowsHide: isFlag,
  km_link: isFlag,
  kill_retry_time: (value) => value === 100,
  username: isText,
  COLOR: (value) => value === 'red',
};

for (const mode of ['fork', 'cluster']) {
  test(`list and describe give every key with its type in ${mode} mode`, async () => {
    await home.call('start', {
      script: app('steady.js'), name: 'shape', exec_mode: mode, instances: 1, args: ['x'], env: { COLOR: 'red' },
    });
    await home.status('shape', 'online');
    const one = await until('the version of Node', async () => {
      const [found] = await home.list('shape');
      return found.pm2_env.node_version && found;
    });
    assert.deepEqual(Object.keys(one).sort(), ['monit', 'name', 'pid', 'pm2_env', 'pm_id']);
    assert.ok(Number.isInteger(one.pid) && isAlive(one.pid));
    assert.strictEqual(one.pm_id, 0);
    assert.equal(one.name, 'shape');
    const wrong = Object.entries(KEYS)
      .filter(([key, is]) => !is(one.pm2_env[key]))
      .map(([key]) => `${key}: ${JSON.stringify(one.pm2_env[key])}`);
    assert.deepEqual(wrong, []);
    assert.equal(one.pm2_env.exec_mode, `${mode}_mode`);
    // A tool that counts occurrences in prettylist would count these twice.
    for (const key of ['status', 'pm_id', 'pm_exec_path', 'NODE_APP_INSTANCE']) {
      assert.ok(!(key in one.pm2_env.env), key);
    }
    const described = await home.call('describe', 'shape');
    assert.equal(described.length, 1);
    assert.deepEqual(Object.keys(described[0].pm2_env).sort(), Object.keys(one.pm2_env).sort());
    assert.deepEqual(await home.call('describe', 0).then((list) => list[0].pid), one.pid);
  });
}

test('memory is the resident size, and the node version is what the app says', async () => {
  await home.call('start', { script: app('steady.js'), name: 'm', agent: false });
  const said = { node_version: process.versions.node };
  await home.call('sendDataToProcessId', 0, { type: 'process:msg', topic: 'say', data: { raw: said } });
  const one = await until('figures', async () => {
    const [found] = await home.list('m');
    return found.monit.memory > 10e6 && found.pm2_env.node_version && found;
  });
  assert.ok(one.monit.memory < 500e6);
  assert.equal(typeof one.monit.cpu, 'number');
  assert.equal(one.pm2_env.node_version, process.versions.node);
});

test('a variable with the name of an attribute stays in env and changes nothing', async () => {
  await home.call('start', { script: app('steady.js'), name: 'mine', env: { name: 'evil', status: 'odd' } });
  const [one] = await home.status('mine', 'online');
  assert.equal(one.pm2_env.name, 'mine');
  assert.equal(one.pm2_env.env.name, 'evil');
});

test('ids are ascending in the list whatever the names', async () => {
  await home.call('start', { script: app('steady.js'), name: 'z' });
  await home.call('start', { script: app('steady.js'), name: 'a' });
  const list = await home.list();
  assert.deepEqual(list.map((one) => [one.pm_id, one.name]), [[0, 'z'], [1, 'a']]);
});

test('a stopped process has pid 0, no figures, and its exit code', async () => {
  await home.call('start', { script: app('steady.js'), name: 's' });
  await home.call('stop', 's');
  const [one] = await home.status('s', 'stopped');
  assert.strictEqual(one.pid, 0);
  assert.deepEqual(one.monit, { memory: 0, cpu: 0 });
  assert.equal(typeof one.pm2_env.exit_code, 'number');
});

test('the report names the version and the number of apps', async () => {
  await home.call('start', app('steady.js'));
  const report = await new Promise((resolve, reject) => {
    home.client.Client.executeRemote('getReport', {}, (error, value) => (error ? reject(error) : resolve(value)));
  });
  assert.equal(report.pm2_version, '7.0.4');
  assert.equal(report.managed_apps, 1);
  assert.ok(isMoment(report.started_at));
});

test('pid and id lookups give what the list says', async () => {
  await home.call('start', { script: app('steady.js'), name: 'p', instances: 2, exec_mode: 'cluster' });
  const list = await home.status('p', 'online', 2);
  assert.deepEqual(await home.call('getProcessIdByName', 'p'), list.map((one) => one.pm_id));
});
