// A load generator in plain Node. It never retries: every request that does
// not end in a complete 2xx answer is a failure and is counted by kind.
//
// As a program:  node load.mjs URL [--seconds 5] [--connections 16] [--close]
// prints one line of JSON.

import http from 'node:http';
import { pathToFileURL } from 'node:url';

const TIMEOUT_MS = 10_000;

/** The kind of failure an error is: reset, refused, timeout or other. */
export function classify(error) {
  switch (error.code) {
    case 'ECONNRESET':
    case 'EPIPE':
      return 'reset';
    case 'ECONNREFUSED':
      return 'refused';
    case 'ETIMEDOUT':
      return 'timeout';
    default:
      return 'other';
  }
}

/** Sends one GET and resolves to `{ failure: string | null, body }`. */
export function request(url, agent) {
  return new Promise((resolve) => {
    const req = http.get(url, { agent, timeout: TIMEOUT_MS }, (res) => {
      const chunks = [];
      res.on('data', (chunk) => chunks.push(chunk));
      res.on('error', (error) => resolve({ failure: classify(error), body: null }));
      res.on('end', () => {
        const good = res.statusCode >= 200 && res.statusCode < 300;
        const failure = good ? null : res.statusCode >= 500 ? '5xx' : 'other';
        resolve({ failure, body: Buffer.concat(chunks).toString() });
      });
    });
    req.on('timeout', () => req.destroy(Object.assign(new Error('timeout'), { code: 'ETIMEDOUT' })));
    req.on('error', (error) => resolve({ failure: classify(error), body: null }));
  });
}

/**
 * Starts load on `url` with `connections` clients, each sending its next
 * request when the last one is answered. `keepAlive` false opens a connection
 * per request. Returns `{ stop() }`; `stop` resolves to
 * `{ requests, failed, failures: {kind: n}, per_second }`.
 * `onBody` sees the text of every good answer.
 */
export function startLoad(url, { connections = 16, keepAlive = true, onBody = () => {} } = {}) {
  const agent = keepAlive ? new http.Agent({ keepAlive: true, maxSockets: connections }) : false;
  const failures = {};
  let requests = 0;
  let stopping = false;
  const began = process.hrtime.bigint();

  const client = async () => {
    while (!stopping) {
      const { failure, body } = await request(url, agent);
      requests += 1;
      if (failure) failures[failure] = (failures[failure] || 0) + 1;
      else onBody(body);
    }
  };
  const clients = Array.from({ length: connections }, client);

  return {
    async stop() {
      stopping = true;
      const seconds = Number(process.hrtime.bigint() - began) / 1e9;
      const per_second = requests / seconds;
      await Promise.all(clients);
      if (agent) agent.destroy();
      const failed = Object.values(failures).reduce((sum, n) => sum + n, 0);
      return { requests, failed, failures, per_second };
    },
  };
}

async function main(argv) {
  const option = (name, fallback) => {
    const at = argv.indexOf(name);
    return at < 0 ? fallback : Number(argv[at + 1]);
  };
  const load = startLoad(argv[0], {
    connections: option('--connections', 16),
    keepAlive: !argv.includes('--close'),
  });
  await new Promise((resolve) => setTimeout(resolve, option('--seconds', 5) * 1000));
  console.log(JSON.stringify(await load.stop()));
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main(process.argv.slice(2));
}
