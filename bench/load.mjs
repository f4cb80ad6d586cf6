// Loads a server that gives every request an answer of the same length, with
// as little work per request as Node allows: bytes are counted, not parsed.
// Made for `bench/apps/hello.js`; use `examples/shop/load.mjs` for real ones.
//
//   node load.mjs PORT --seconds 5 --connections 32 [--close]
//
// Prints one line of JSON: { requests, failed, failures, per_second }.

import net from 'node:net';

const [port, ...argv] = process.argv.slice(2);
const option = (name, fallback) => {
  const at = argv.indexOf(name);
  return at < 0 ? fallback : Number(argv[at + 1]);
};
const seconds = option('--seconds', 5);
const connections = option('--connections', 32);
const close = argv.includes('--close');
const text = `GET / HTTP/1.1\r\nHost: localhost\r\n${close ? 'Connection: close\r\n' : ''}\r\n`;

const failures = {};
let requests = 0;
let stopping = false;

const kinds = { ECONNRESET: 'reset', EPIPE: 'reset', ECONNREFUSED: 'refused', ETIMEDOUT: 'timeout' };
function fail(kind) {
  if (!stopping) failures[kind] = (failures[kind] || 0) + 1;
}

/** One client; opens its next connection when this one has ended. */
function client(answerLength) {
  const socket = net.connect(Number(port), '127.0.0.1');
  let received = 0;
  let broken = false;
  socket.setNoDelay(true);
  socket.write(text);
  socket.on('data', (data) => {
    if (received === 0 && !data.toString('latin1', 0, 12).startsWith('HTTP/1.1 200')) fail('other');
    received += data.length;
    if (close || received < answerLength) return;
    requests += 1;
    received = 0;
    if (stopping) socket.destroy();
    else socket.write(text);
  });
  socket.on('error', (error) => {
    broken = true;
    fail(kinds[error.code] || 'other');
  });
  socket.on('close', () => {
    if (!broken) {
      if (close && received === answerLength) requests += 1;
      else fail('reset');
    }
    if (!stopping) setImmediate(client, answerLength);
  });
}

/** The length of one answer, in bytes; the `Date` in it never changes length. */
function probe() {
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(port), '127.0.0.1', () => socket.write(text));
    let answer = '';
    socket.on('error', reject);
    socket.on('data', (data) => {
      answer += data.toString('latin1');
      const head = answer.indexOf('\r\n\r\n');
      const length = /content-length: (\d+)/i.exec(answer);
      if (head < 0 || !length || answer.length < head + 4 + Number(length[1])) return;
      socket.destroy();
      resolve(answer.length);
    });
  });
}

const answerLength = await probe();
const began = process.hrtime.bigint();
for (let n = 0; n < connections; n += 1) client(answerLength);
setTimeout(() => {
  stopping = true;
  const per_second = requests / (Number(process.hrtime.bigint() - began) / 1e9);
  const failed = Object.values(failures).reduce((sum, n) => sum + n, 0);
  process.stdout.write(JSON.stringify({ requests, failed, failures, per_second }) + '\n', () => process.exit(0));
}, seconds * 1000);
