// The demo: starts the shop in a scratch home, uses it, hurts it, reloads it
// under load and stops it. Every step checks what it shows; the exit code is
// not 0 if a check fails. Nothing survives, not even Ctrl-C.
//
//   MUSHER=path/to/musher node demo.mjs

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { request, startLoad } from './load.mjs';

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const musher = process.env.MUSHER;
const COMMAND_MS = 60_000;
const WAIT_MS = 30_000;

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'shop-demo-'));
const home = path.join(scratch, 'home');
const logs = path.join(scratch, 'logs');
const env = { ...process.env, MUSHER_HOME: home, PM2_HOME: home, SHOP_LOGS: logs, SHOP_DEMO: scratch };

let passed = 0;
let failed = 0;
let ending = false;
const children = new Set();

const title = (text) => console.log(`\n== ${text}`);

function check(ok, text) {
  if (ok) passed += 1;
  else failed += 1;
  console.log(`   ${ok ? 'ok  ' : 'FAIL'} ${text}`);
  return ok;
}

/** Runs a musher command; resolves to `{ code, stdout, stderr }`. */
function run(args, { timeout = COMMAND_MS, show = false, last = false } = {}) {
  // A step that goes on while the demo is being ended must start nothing.
  if (ending && !last) return new Promise(() => {});
  return new Promise((resolve, reject) => {
    const child = spawn(musher, args, { cwd: here, env, stdio: ['ignore', 'pipe', 'pipe'] });
    children.add(child);
    let stdout = '';
    let stderr = '';
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, timeout);
    child.stdout.on('data', (data) => {
      stdout += data;
      if (show) process.stdout.write(data);
    });
    child.stderr.on('data', (data) => {
      stderr += data;
      if (show) process.stderr.write(data);
    });
    const done = () => {
      clearTimeout(timer);
      children.delete(child);
      return !ending || last;
    };
    child.on('error', (error) => {
      if (done()) reject(error);
    });
    // `exit`, not `close`: a daemon that kept the pipe must not hold the demo.
    child.on('exit', (code) => {
      if (!done()) return;
      if (late) reject(new Error(`\`musher ${args.join(' ')}\` took more than ${timeout} ms`));
      else setImmediate(() => resolve({ code, stdout, stderr }));
    });
  });
}

/** Runs a command that must succeed, showing what was typed and printed. */
async function show(...args) {
  console.log(`$ musher ${args.join(' ')}`);
  const result = await run(args, { show: true });
  check(result.code === 0, `musher ${args[0]} ends with exit code ${result.code}`);
  return result;
}

async function list() {
  const { code, stdout, stderr } = await run(['jlist']);
  if (code !== 0) throw new Error(`jlist ended with ${code}: ${stderr}`);
  // A first command may print a banner above the JSON.
  const at = stdout.indexOf('[{');
  return at < 0 ? [] : JSON.parse(stdout.slice(at));
}

const status = (p) => p.pm2_env.status;
const named = (processes, name) => processes.filter((p) => p.name === name);

/** Asks `condition` again until it answers something true, or throws. */
async function until(what, condition, timeout = WAIT_MS) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${timeout} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Finds every process of this demo: they all carry its variable. */
function survivors() {
  const mark = `SHOP_DEMO=${scratch}\0`;
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    if (pid === process.pid) return false;
    try {
      return (fs.readFileSync(`/proc/${pid}/environ`, 'latin1') + '\0').includes(mark);
    } catch {
      return false;
    }
  });
}

/** Whether `pid` runs: one that ended and waits to be reaped does not. */
function alive(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
}

/** The pids above `pid`, nearest first; the manager's are among them. */
function ancestors(pid) {
  const found = [];
  for (let at = pid; at > 1; ) {
    try {
      const stat = fs.readFileSync(`/proc/${at}/stat`, 'latin1');
      at = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    } catch {
      break;
    }
    if (at > 1) found.push(at);
  }
  return found;
}

/** Free ports of loopback: the demo must not meet another one. */
async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => resolve(server));
  })));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function start() {
  title('Start the shop from its unmodified ecosystem file');
  await show('start', 'ecosystem.config.js');
  const processes = await until('every process online', async () => {
    const all = await list();
    return all.length > 0 && all.every((p) => status(p) === 'online') && all;
  });
  const counts = ['gateway', 'api', 'auth', 'worker'].map((name) => named(processes, name).length);
  const [gateways, apis, auths, workers] = counts;
  check(gateways >= 1 && apis === gateways && auths === 2 && workers === 1,
    `online: ${gateways} gateway, ${apis} api, ${auths} auth, ${workers} worker`);
  await show('ls');
}

async function requests(url) {
  title('Send 200 requests, each on its own connection');
  const answered = { gateway: {}, auth: {}, api: {} };
  let failures = 0;
  for (let i = 0; i < 200; i += 1) {
    const { failure, body } = await request(`${url}/items?token=t${i}`, false);
    if (failure) {
      failures += 1;
      continue;
    }
    for (const [app, worker] of Object.entries(JSON.parse(body).answered_by)) {
      const key = `instance ${worker.instance} (pid ${worker.pid})`;
      answered[app][key] = (answered[app][key] || 0) + 1;
    }
  }
  for (const [app, workers] of Object.entries(answered)) {
    for (const key of Object.keys(workers).sort()) {
      console.log(`   ${app.padEnd(8)} ${key.padEnd(28)} ${String(workers[key]).padStart(4)} answers`);
    }
  }
  check(failures === 0, `${failures} of 200 failed`);
  const gateways = named(await list(), 'gateway').length;
  check(Object.keys(answered.gateway).length === gateways, `all ${gateways} gateway workers answered`);
}

async function crash(url) {
  title('Kill a gateway worker with SIGKILL');
  const victim = named(await list(), 'gateway')[0];
  const began = process.hrtime.bigint();
  process.kill(victim.pid, 'SIGKILL');
  const after = await until('a replacement online', async () => {
    const now = (await list()).find((p) => p.pm_id === victim.pm_id);
    return now && now.pid > 0 && now.pid !== victim.pid && status(now) === 'online' && now;
  });
  const ms = Number(process.hrtime.bigint() - began) / 1e6;
  check(after.pid !== victim.pid,
    `process ${victim.pm_id}: pid ${victim.pid} was replaced by pid ${after.pid} (seen after ${ms.toFixed(0)} ms)`);
  check(after.pm2_env.restart_time === victim.pm2_env.restart_time + 1, 'the restart is counted');
  await until('the replacement answering', async () => {
    const { failure, body } = await request(`${url}/`, false);
    return !failure && JSON.parse(body).gateway.pid === after.pid;
  });
  check(true, 'the replacement answers requests');
}

async function reload(url) {
  title('Reload everything under load');
  const before = await list();
  const loads = [
    ['keep-alive', startLoad(`${url}/items`, { connections: 8, keepAlive: true })],
    ['connection per request', startLoad(`${url}/items`, { connections: 8, keepAlive: false })],
  ];
  await show('reload', 'all');
  // Load goes on until the last predecessor is gone: a worker may still be
  // draining when the command answers.
  const left = () => before.filter((p) => alive(p.pid)).map((p) => `${p.name} ${p.pid}`);
  await until('the predecessors gone', () => left().length === 0).catch(() => {});
  let total = 0;
  for (const [kind, load] of loads) {
    const { requests, failed, failures } = await load.stop();
    total += failed;
    check(requests > 0, `${kind}: ${requests} requests, ${failed} failed ${JSON.stringify(failures)}`);
  }
  check(total === 0, `${total} requests failed during the reload`);
  const after = await list();
  const online = after.filter((p) => status(p) === 'online').length;
  check(left().length === 0 && online === before.length,
    `${online} of ${before.length} processes were replaced and are online ${left().join(', ')}`);
}

async function showLogs() {
  title('Look at the logs');
  const { stdout } = await show('logs', '--nostream', '--lines', '3');
  check(/drained, bye|listening on/.test(stdout), 'the tail shows lines of the services');
  const files = fs.readdirSync(logs).sort();
  console.log(`   files: ${files.join(' ')}`);
  const full = ['gateway', 'api', 'auth', 'worker'].every((name) =>
    fs.statSync(path.join(logs, `${name}-combined.log`), { throwIfNoEntry: false })?.size > 0);
  check(full, 'every app has a combined log');
}

async function stop() {
  title('Stop everything');
  const above = new Set([process.pid, ...ancestors(process.pid)]);
  const processes = (await list()).map((p) => p.pid);
  const managers = ancestors(processes[0]).filter((pid) => !above.has(pid));
  check(managers.length > 0, `${processes.length} processes and their manager run (pid ${managers.join(', ')})`);
  await show('kill');
  const left = () => [...new Set([...managers, ...processes, ...survivors()])]
    .filter(alive);
  const gone = await until('all processes gone', () => left().length === 0, 10_000).catch(() => false);
  check(gone, gone ? 'no process is left' : `still alive: ${left().join(', ')}`);
}

/** Ends what a failed or interrupted demo left behind. */
async function clean() {
  ending = true;
  for (const child of children) child.kill('SIGKILL');
  if (survivors().length > 0) await run(['kill'], { timeout: 15_000, last: true }).catch(() => {});
  // An app may fork while it dies, so look again until nothing is left.
  for (let round = 0; round < 20 && survivors().length > 0; round += 1) {
    for (const pid of survivors()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended between the look and the signal.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  fs.rmSync(scratch, { recursive: true, force: true });
}

async function interrupted(signal) {
  console.error(`\n${signal}: stopping the demo`);
  await clean();
  process.exit(130);
}

async function main() {
  if (!musher) {
    console.error('set MUSHER to the musher executable, or run `make demo`');
    process.exit(2);
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => interrupted(signal));
  const names = ['SHOP_GATEWAY_PORT', 'SHOP_API_PORT', 'SHOP_AUTH_PORT'];
  (await freePorts(names.length)).forEach((port, i) => {
    env[names[i]] = String(port);
  });
  const url = `http://127.0.0.1:${env.SHOP_GATEWAY_PORT}`;
  try {
    await start();
    await requests(url);
    await crash(url);
    await reload(url);
    await showLogs();
    await stop();
  } catch (error) {
    check(false, error.message);
  } finally {
    await clean();
  }
  console.log(`\ndemo: ${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

await main();
