// Answers every request with the worker's identity; closes gracefully.
const http = require('http');
let draining = false;
const server = http.createServer((req, res) => {
  if (draining) res.setHeader('Connection', 'close');
  if (req.url === '/slow') {
    setTimeout(() => res.end('slow'), 300);
    return;
  }
  res.end(JSON.stringify({
    pid: process.pid,
    instance: process.env.NODE_APP_INSTANCE,
    env: process.env.STAGE,
    version: process.env.APP_VERSION,
  }));
});
server.listen(Number(process.env.PORT), process.env.HOST, () => {
  console.log(`listening pid=${process.pid}`);
  if (process.send) process.send('ready');
});
process.on('SIGINT', () => {
  draining = true;
  // http.Server.close (Node 19 and later) would cut connections whose request
  // is still on its way; net's only stops listening.
  require('net').Server.prototype.close.call(server, () => process.exit(0));
  // Idle keep-alive connections get one more answer, with `Connection: close`.
  setTimeout(() => server.closeIdleConnections(), 300);
});
