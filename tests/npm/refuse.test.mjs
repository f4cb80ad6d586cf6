// Mistakes: each is told with PM2's text, and nothing is lost by it.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { Home, app } from './support/home.mjs';
import { isAlive } from './support/processes.mjs';

let home;
before(async () => { home = await Home.open(); });
afterEach(() => home.clear());
after(() => home.close());

/// Returns the text of the error a call ends with.
async function refused(call) {
  const outcome = await call.then((value) => ({ value }), (error) => ({ error }));
  assert.ok('error' in outcome, `not refused: ${JSON.stringify(outcome.value)}`);
  return outcome.error?.message ?? String([outcome.error].flat().map((one) => one.message ?? one));
}

const remote = (method, argument) => new Promise((resolve, reject) => {
  home.client.Client.executeRemote(method, argument, (error, value) => (error ? reject(error) : resolve(value)));
});

test('unknown names are refused', async () => {
  for (const verb of ['stop', 'restart', 'reload', 'delete']) {
    assert.equal(await refused(home.call(verb, 'nobody')), 'process or namespace not found', verb);
  }
  assert.equal(await refused(home.call('reset', 'nobody')), 'Unknown process name');
  assert.equal(await refused(home.call('scale', 'nobody', 2)), 'App not found');
  assert.deepEqual(await home.call('describe', 'nobody'), []);
});

const UNKNOWN_IDS = [
  ['stop', '77 : id unknown'],
  ['delete', '77 : id unknown'],
  ['restart', 'God db process id unknown'],
  ['reload', 'PM2 ID unknown'],
];
for (const [verb, text] of UNKNOWN_IDS) {
  test(`${verb} of an unknown id says '${text}'`, async () => {
    assert.equal(await refused(home.call(verb, 77)), text);
  });
}

test('a script that does not exist is not found', async () => {
  const script = join(home.dir, 'no.js');
  assert.ok((await refused(home.call('start', script))).includes(`Script not found: ${script}`));
  assert.deepEqual(await home.list(), []);
});

test('a script that runs is not started a second time without force', async () => {
  await home.call('start', app('steady.js'));
  const [{ pid }] = await home.list();
  assert.equal(await refused(home.call('start', app('steady.js'))), 'Script already launched');
  assert.equal((await home.list()).length, 1);
  assert.ok(isAlive(pid));
  await home.call('start', app('steady.js'), { force: true });
  assert.equal((await home.status('steady', 'online', 2)).length, 2);
});

test('scaling to the number there is, is refused', async () => {
  await home.call('start', { script: app('steady.js'), name: 's' });
  assert.equal(await refused(home.call('scale', 's', 1)), 'Same process number');
});

test('saving an empty list is refused', async () => {
  assert.equal(await refused(home.call('dump')), 'Process list empty, cannot save empty list');
});

test('signals are checked', async () => {
  await home.call('start', app('steady.js'));
  const [one] = await home.list();
  const bad = remote('sendSignalToProcessId', { process_id: one.pm_id, signal: 'SIGNOPE' });
  assert.equal(await refused(bad), 'Error when sending signal (signal unknown)');
  assert.equal(await refused(remote('sendSignalToProcessId', { process_id: 77, signal: 'SIGUSR2' })), '77 id unknown');
  assert.equal(await refused(remote('sendSignalToProcessName', { process_name: 'nobody', signal: 'SIGUSR2' })), 'Unknown process name');
  assert.ok(isAlive(one.pid));
});

test('data and lines for nobody, for a stopped app and for a worker are refused', async () => {
  const data = (id) => remote('sendDataToProcessId', { id, topic: 't', data: {} });
  const line = (id) => remote('sendLineToStdin', { pm_id: id, line: 'x' });
  assert.equal(await refused(data(77)), 'Process with ID 77 unknown.');
  assert.equal(await refused(line(77)), 'Process with ID 77 unknown.');
  assert.equal(await refused(remote('sendDataToProcessId', { id: 77 })), 'ID, DATA or TOPIC field is missing');
  assert.equal(await refused(remote('sendLineToStdin', { pm_id: 0 })), 'pm_id or line field missing');
  await home.call('start', { script: app('steady.js'), name: 'w', exec_mode: 'cluster', instances: 1 });
  assert.equal(await refused(line(0)), 'Cannot send line to processes in cluster mode');
  await home.call('stop', 'w');
  assert.equal(await refused(data(0)), 'Process with ID 0 offline.');
  assert.equal(await refused(line(0)), 'Process with ID 0 offline.');
});

test('actions nobody registered are refused by id and reach nobody by name', async () => {
  await home.call('start', { script: app('steady.js'), name: 'quiet' });
  assert.equal(await refused(remote('msgProcess', { id: 0, msg: 'gc' })), "Action doesn't exist gc for quiet");
  assert.equal(await refused(remote('msgProcess', { id: 77, msg: 'gc' })), '77 id unknown');
  assert.equal(await refused(remote('msgProcess', { msg: 'gc' })), 'method requires name or id field');
  assert.deepEqual(await remote('msgProcess', { name: 'quiet', msg: 'gc' }), { process_count: 0, success: true });
});

const BAD_CALLS = [
  ['startProcessId', 77, '77 id unknown'],
  ['duplicateProcessId', 77, '77 id unknown'],
  ['resetMetaProcessId', 77, '77 id unknown'],
  ['restartProcessId', {}, 'opts.id not passed to restartProcessId'],
  ['softReloadProcessId', { id: 77 }, 'pm_id 77 not available in 77'],
  ['monitor', 77, 'Unknown pm_id'],
  ['notifyByProcessId', {}, 'process id missing'],
  ['notifyByProcessId', { id: 77, action_name: 'x' }, 'process id doesnt exists'],
  ['nonsense', {}, 'method "nonsense" does not exist'],
];
for (const [method, argument, text] of BAD_CALLS) {
  test(`${method} of ${JSON.stringify(argument)} says '${text}'`, async () => {
    assert.equal(await refused(remote(method, argument)), text);
  });
}

test('an interpreter that does not exist is told and starts nothing', async () => {
  const call = home.call('start', { script: app('steady.js'), name: 'i', interpreter: 'no-such-interpreter' });
  assert.match(await refused(call), /no-such-interpreter/);
  assert.deepEqual((await home.list()).filter((one) => one.pid), []);
});

test('starting an online process again by its id is refused', async () => {
  await home.call('start', app('steady.js'));
  assert.equal(await refused(remote('startProcessId', 0)), 'process already online');
});
