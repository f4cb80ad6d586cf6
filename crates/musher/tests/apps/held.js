'use strict';
// A server on descriptor 3 outside of cluster mode; its channel is above.
const server = require('http').createServer((_, response) => response.end(String(process.pid)));
server.listen({ fd: 3 }, () => {
  console.log(JSON.stringify({ event: 'up', channel: process.env.NODE_CHANNEL_FD || 'taken', fds: process.env.LISTEN_FDS }));
  process.send('ready');
});
process.on('SIGINT', () => server.close(() => process.exit(0)));
