// An HTTP server that ends as a good one does: it answers what it has been
// asked, tells kept connections to close, and only then leaves.
const http = require('node:http');
const net = require('node:net');

let isLeaving = false;
const server = http.createServer((request, response) => {
  if (isLeaving) response.setHeader('Connection', 'close');
  response.end(JSON.stringify({ pid: process.pid, generation: process.env.GENERATION ?? null }));
});
server.keepAliveTimeout = 30_000;
server.listen(Number(process.env.PORT), '127.0.0.1', () => process.send?.('ready'));
process.on('SIGINT', () => {
  isLeaving = true;
  // http's own close cuts idle connections, on which a request may be on its way.
  net.Server.prototype.close.call(server, () => process.exit(0));
});
