'use strict';
// One feature of Node's cluster per APP_CASE; each line it prints is one JSON fact.
const cluster = require('cluster');
const http = require('http');

const port = Number(process.env.APP_PORT);
const tell = (event, more) => console.log(JSON.stringify({
  event, pid: process.pid, worker: cluster.isWorker, id: cluster.worker && cluster.worker.id, ...more,
}));
const answer = (_, response) => response.end(String(process.pid));
const failed = (error) => tell('error', { code: error.code, text: error.message });
const listen = (server, ...where) => server.on('error', failed).listen(...where, () => tell('listening', { address: server.address() }));

const cases = {
  http() {
    listen(http.createServer(answer), port, '127.0.0.1');
    process.on('message', (message) => {
      tell('got', { message });
      process.send({ type: 'process:msg', data: { echo: message.data } });
    });
  },
  https() {
    const fs = require('fs');
    listen(require('https').createServer({ key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem') }, answer), port, '127.0.0.1');
  },
  net() {
    listen(require('net').createServer((socket) => socket.end(String(process.pid))), port, '127.0.0.1');
  },
  dgram() {
    const socket = require('dgram').createSocket('udp4');
    socket.on('message', (_, from) => socket.send(String(process.pid), from.port, from.address));
    socket.on('error', failed);
    socket.bind(port, '127.0.0.1', () => tell('listening'));
  },
  two() {
    listen(http.createServer((_, response) => response.end(`first ${process.pid}`)), port, '127.0.0.1');
    listen(http.createServer((_, response) => response.end(`second ${process.pid}`)), Number(process.env.APP_PORT_2), '127.0.0.1');
  },
  any() {
    listen(http.createServer(answer), 0, '127.0.0.1');
  },
  unix() {
    listen(http.createServer(answer), process.env.APP_PATH);
  },
  farewell() {
    process.on('exit', (code) => tell('exit', { code, asked: cluster.worker.exitedAfterDisconnect }));
    process.on('disconnect', () => {
      tell('disconnect', { connected: process.connected });
      process.exit(0);
    });
    listen(http.createServer((request, response) => {
      response.end(String(process.pid));
      if (request.url === '/process') process.disconnect();
      if (request.url === '/worker') cluster.worker.disconnect();
    }), port, '127.0.0.1');
  },
};
cases[process.env.APP_CASE]();
