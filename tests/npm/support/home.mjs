// A home with a running musher, and PM2's own client from npm connected to it.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PATIENCE, isAlive, parent, processesOf, until } from './processes.mjs';

const require = createRequire(import.meta.url);
const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/// The binary under test.
export const MUSHER = process.env.MUSHER_BIN ?? process.env.MUSHER
  ?? join(ROOT, '../../target/debug/musher');
/// PM2's own command line.
export const PM2 = process.env.PM2 ?? join(ROOT, 'node_modules/.bin/pm2');

/// Returns the path of a fixture.
export const app = (name) => join(ROOT, 'apps', name);

/// A home of its own under the temporary directory.
export class Home {
  /// Makes a home and starts musher in it. The client reads PM2_HOME when it is
  /// loaded, so a test file has one home.
  static async open() {
    const home = new Home();
    home.dir = mkdtempSync(join(tmpdir(), 'musher-npm-'));
    // Without it PM2's command line greets a first-time user on stdout.
    writeFileSync(join(home.dir, 'touch'), String(Date.now()));
    process.env.PM2_HOME = home.dir;
    home.start();
    await until('the daemon answers', () => home.answers());
    home.client = require('pm2');
    await home.call('connect');
    return home;
  }

  /// Starts keeper and daemon, as the first command of a home does.
  start() {
    const ran = this.musher('ping');
    if (ran.code !== 0) throw new Error(`musher ping: ${ran.out}${ran.err}`);
    this.keeper = parent(this.daemon());
  }

  /// Returns whether somebody accepts on the request socket.
  answers() {
    return new Promise((resolve) => {
      const socket = net.connect(join(this.dir, 'rpc.sock'));
      socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
      socket.on('connect', () => socket.destroy());
    });
  }

  /// Calls a method of the client; errors are thrown.
  call(method, ...args) {
    return call(this.client, method, ...args);
  }

  /// Returns one more client of this home, not yet connected.
  another() {
    return new this.client.custom({ pm2_home: this.dir });
  }

  /// Returns the daemon's pid.
  daemon() {
    return Number(readFileSync(join(this.dir, 'pm2.pid'), 'utf8'));
  }

  /// Returns the processes of an app, or all.
  async list(name) {
    const list = await this.call('list');
    return name ? list.filter((process) => process.name === name) : list;
  }

  /// Waits until `n` processes of an app have this status.
  async status(name, status, n = 1) {
    return until(`${n} of ${name} ${status}`, async () => {
      const list = await this.list(name);
      const all = list.length === n && list.every((one) => one.pm2_env.status === status);
      return all && list;
    });
  }

  /// Waits for text in a file and returns what it holds.
  holds(path, text) {
    return until(`${path} holds ${text}`, () => {
      const content = existsSync(path) ? readFileSync(path, 'utf8') : '';
      return content.includes(text) && content;
    });
  }

  /// Returns what the steady app said about itself at its last start.
  async facts(process) {
    const path = process.pm2_env.pm_out_log_path;
    const content = await until(`facts in ${path}`, () => {
      const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
      return text.includes(`"pid":${process.pid},`) && text;
    });
    const line = content.split('\n').find((one) => one.includes(`"pid":${process.pid},`));
    return JSON.parse(line.slice('facts '.length));
  }

  /// Deletes every app; their processes must be gone.
  async clear() {
    const pids = (await this.list()).map((process) => process.pid).filter(Boolean);
    if ((await this.list()).length > 0) await this.call('delete', 'all');
    const left = pids.filter(isAlive);
    if (left.length > 0) throw new Error(`delete left processes ${left}`);
  }

  /// Runs PM2's own command line and returns what it printed and its code.
  pm2(...args) {
    return this.run(PM2, args);
  }

  /// Runs musher's command line.
  musher(...args) {
    return this.run(MUSHER, args);
  }

  run(program, args) {
    const env = {
      PATH: process.env.PATH, HOME: this.dir, PM2_HOME: this.dir, MUSHER_HOME: this.dir, NO_COLOR: '1',
    };
    const ran = spawnSync(program, args, { env, encoding: 'utf8', timeout: 20_000 });
    return { code: ran.status, out: ran.stdout, err: ran.stderr };
  }

  /// Ends everything and checks that nothing is left.
  async close() {
    try {
      // After a kill PM2's client connects again for ever: it leaves first.
      if (this.client) await this.call('disconnect');
      this.musher('kill');
      await until('nothing survives', () => processesOf(this.dir).length === 0 && !isAlive(this.keeper));
    } finally {
      // Only after a failure is there anybody left.
      for (const pid of processesOf(this.dir)) process.kill(pid, 'SIGKILL');
      rmSync(this.dir, { recursive: true, force: true });
    }
  }
}

/// Calls a method that takes a callback.
export function call(client, method, ...args) {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`${method} was not answered within ${PATIENCE} ms`));
    const timer = setTimeout(late, PATIENCE);
    client[method](...args, (error, value) => {
      clearTimeout(timer);
      if (error) reject(error);
      else resolve(value);
    });
  });
}

/// Returns a port nobody listens on at this moment.
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer().on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
