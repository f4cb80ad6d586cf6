// Answers each line with itself and the pid. When it is told to leave, the next
// answer of each connection says `bye` and is its last.
let isLeaving = false;
const server = require('net').createServer((socket) => {
  let rest = '';
  socket.on('error', () => {});
  socket.on('data', (data) => {
    const lines = (rest + data).split('\n');
    rest = lines.pop();
    const end = isLeaving ? ' bye' : '';
    for (const line of lines) socket.write(`${line} ${process.pid}${end}\n`);
    if (isLeaving && lines.length > 0) socket.end();
  });
});
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGINT', () => {
  isLeaving = true;
  server.close(() => process.exit(0));
});
