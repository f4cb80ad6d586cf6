// Drains as carefully as an app can by itself: it stops listening, and idle
// connections get one more answer that says it is the last.
let isLeaving = false;
const server = require('http').createServer((_, res) => {
  if (isLeaving) res.setHeader('Connection', 'close');
  res.end(`ok ${process.pid}`);
});
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGINT', () => {
  isLeaving = true;
  // http's own close would cut connections whose request is on its way (Node 19).
  require('net').Server.prototype.close.call(server, () => process.exit(0));
  setTimeout(() => server.closeIdleConnections(), 300);
});
