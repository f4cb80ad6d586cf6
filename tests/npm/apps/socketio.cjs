// A Socket.IO app as the packages for several workers want it; nothing of musher.
const { createServer } = require('node:http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/cluster-adapter');
const { setupWorker } = require('@socket.io/sticky');

const http = createServer();
const io = new Server(http, { adapter: createAdapter() });
setupWorker(io);
io.on('connection', (socket) => {
  socket.on('who', (answer) => answer(process.pid));
  socket.on('tell all', (word) => io.emit('told', word));
});
http.listen(Number(process.env.PORT), '127.0.0.1', () => process.send('ready'));
