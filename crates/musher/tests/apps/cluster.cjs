'use strict';
// An ordinary Node app, one case per APP_CASE; it tells what happened by process.send().
const cluster = require('cluster');
const http = require('http');

const port = Number(process.env.APP_PORT);
const tell = (event, more) => process.send({ event, pid: process.pid, ...more });
const failed = (event) => (error) => tell(event, { code: error.code });
const server = () => http.createServer((request, response) => response.end(String(process.pid)));

const cases = {
  http() {
    server().on('error', failed('error')).listen(port, () => {
      tell('listening', { isWorker: cluster.isWorker, id: cluster.worker.id });
      process.send('ready');
    });
    process.on('message', () => cluster.worker.disconnect());
  },
  host() {
    server().listen(port, '127.0.0.1', () => tell('listening'));
  },
  two_random_ports() {
    const a = server().listen(0, () => {
      const b = server().listen(0, () => tell('listening', { ports: [a.address().port, b.address().port] }));
    });
  },
  unix() {
    server().on('error', failed('error')).listen({ path: process.env.APP_PATH, writableAll: true }, () => tell('listening'));
  },
  udp() {
    const socket = require('dgram').createSocket('udp4');
    socket.on('message', (_, from) => socket.send(String(process.pid), from.port, from.address));
    socket.bind(port, '127.0.0.1', () => tell('listening'));
  },
  tls() {
    const fs = require('fs');
    const file = (name) => fs.readFileSync(require('path').join(__dirname, name));
    const secure = require('https').createServer({ key: file('key.pem'), cert: file('cert.pem') }, (_, response) => response.end('secure'));
    secure.listen(port, () => tell('listening', { keys: secure.getTicketKeys().toString('hex') }));
  },
  twice() {
    server().listen(port, () => server().on('error', failed('second')).listen(port, () => tell('second', { code: 'none' })));
  },
  close_and_listen() {
    const one = server();
    one.listen(port, () => one.close(() => one.listen(port, () => tell('listening'))));
  },
  close() {
    const one = server();
    one.listen(port, () => tell('listening'));
    process.on('message', () => one.close(() => tell('closed')));
  },
  descriptor() {
    server().on('error', failed('error')).listen({ fd: 5 });
  },
  exclusive() {
    server().on('error', failed('exclusive')).listen({ port, exclusive: true }, () => tell('exclusive', { code: 'none' }));
  },
  talk() {
    process.on('message', (message) => {
      tell('got', { message });
      if (message && message.bye) process.disconnect();
    });
    process.send('h\u00e9llo \u2028 \ud83d\ude00');
    process.send(42);
    process.send({ big: 'x'.repeat(300000) });
    process.send({ lone: '\ud800' });
    tell('talking', { isWorker: cluster.isWorker });
  },
  leave() {
    server().listen(port, () => tell('listening'));
    process.on('message', () => cluster.worker.disconnect());
    process.on('exit', (code) => console.log('exit', code, cluster.worker.exitedAfterDisconnect));
  },
  few() {
    const one = http.createServer((_, response) => setTimeout(() => response.end(String(process.pid)), 150));
    one.maxConnections = 2;
    one.listen(port, () => tell('listening'));
  },
};
cases[process.env.APP_CASE]();
