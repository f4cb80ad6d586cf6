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
  slow() {
    http.createServer((_, response) => setTimeout(() => response.end(String(process.pid)), 20))
      .listen(port, () => tell('listening'));
  },
  // Takes its time over each body, and ends as apps do that do it right.
  uploads() {
    const server = http.createServer((request, response) => {
      let length = 0;
      request.on('data', (chunk) => { length += chunk.length; });
      request.on('end', () => setTimeout(() => {
        const body = `${process.pid} ${length}`;
        response.writeHead(200, { 'content-length': body.length });
        response.end(body);
      }, 10));
    });
    server.keepAliveTimeout = 1500;
    server.on('close', () => tell('close event'));
    server.listen(port, () => tell('listening', { listening: server.listening, address: server.address() }));
    process.on('message', (message) => {
      if (message !== 'end') return;
      tell('before', { listening: server.listening, address: server.address() });
      server.close((error) => tell('ended', { error: error ? error.code : null }));
    });
  },
  // Four servers: two ports of the system's choice, a Unix socket, one of its own.
  many() {
    const any = server().listen(0, () => {
      const second = server().listen(0, () => server().listen(process.env.APP_PATH, () => {
        const own = server().listen({ port: 0, exclusive: true }, () => tell('listening', {
          ports: [any, second, own].map((one) => one.address().port),
        }));
      }));
    });
  },
  // A WebSocket by hand: answers the handshake, then every byte with itself.
  upgraded() {
    const one = server();
    one.on('upgrade', (request, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
      socket.on('data', (data) => socket.write(data));
      socket.on('end', () => socket.end());
      socket.on('error', () => socket.destroy());
    });
    one.listen(port, () => tell('listening'));
  },
  echo() {
    require('net').createServer((socket) => socket.pipe(socket)).listen(port, () => tell('listening'));
  },
  // Clients of itself, because the tests speak no TLS and no HTTP/2.
  secure() {
    const fs = require('fs');
    const file = (name) => fs.readFileSync(require('path').join(__dirname, name));
    const options = { key: file('key.pem'), cert: file('cert.pem') };
    const https = require('https');
    const http2 = require('http2');
    const one = https.createServer(options, (_, response) => response.end('secure'));
    const two = http2.createSecureServer(options, (_, response) => {
      if (sessions.length > 1) tell('asked');
      setTimeout(() => response.end('two'), 100);
    });
    const plain = http2.createServer((_, response) => response.end('plain'));
    one.keepAliveTimeout = 60000;
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
    const get = (then) => https.get({ port, agent, path: '/' }, (response) => {
      response.resume().on('end', () => then(response.headers.connection));
    });
    const sessions = [];
    const stream = (session, then) => {
      const request = session.request({ ':path': '/' });
      let text = '';
      request.on('data', (data) => { text += data; }).on('end', () => then(text)).end();
    };
    process.on('message', (message) => {
      // The answer of this one is on its way when the drain begins.
      if (message === 1) stream(sessions[0], (text) => tell('late answer', { text }));
      else get((connection) => tell('secure answer', { connection }));
    });
    one.listen(port, () => two.listen(0, () => plain.listen(0, () => {
      sessions.push(http2.connect(`https://localhost:${two.address().port}`, { rejectUnauthorized: false }));
      sessions.push(http2.connect(`http://localhost:${plain.address().port}`));
      stream(sessions[1], () => get(() => tell('listening')));
    })));
  },
  // Apps that lay hands on what the agent uses.
  meddler() {
    const send = process.send;
    process.on('internalMessage', (message) => { if (message.cmd === 'NODE_MUSHER') message.seen = true; });
    process._getActiveHandles = undefined;
    server().listen(port, () => setImmediate(() => {
      process.send = () => { throw new Error('this app sends nothing'); };
      send.call(process, { event: 'listening' });
    }));
  },
  few() {
    const one = http.createServer((_, response) => setTimeout(() => response.end(String(process.pid)), 150));
    one.maxConnections = 2;
    one.listen(port, () => tell('listening'));
  },
};
cases[process.env.APP_CASE]();
