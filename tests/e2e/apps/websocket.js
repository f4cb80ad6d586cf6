// Echoes WebSocket messages (the package `ws`); leaves with Close frame 1001
// and waits until every client has answered it.
const { WebSocketServer } = require('ws');
const server = require('http').createServer((_, res) => res.end(`ok ${process.pid}`));
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (data) => socket.send(`${data} ${process.pid}`));
});
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGINT', () => {
  server.close(() => process.exit(0));
  for (const socket of sockets.clients) socket.close(1001);
});
