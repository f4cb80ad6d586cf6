// Answers each line with itself and the pid; when it is told to leave, a
// connection ends after the line that is under way.
const open = new Set();
let isLeaving = false;
const server = require('net').createServer((socket) => {
  let rest = '';
  open.add(socket);
  socket.on('close', () => open.delete(socket)).on('error', () => {});
  socket.on('data', (data) => {
    const lines = (rest + data).split('\n');
    rest = lines.pop();
    for (const line of lines) socket.write(`${line} ${process.pid}\n`);
    if (isLeaving && rest === '') socket.end();
  });
});
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGINT', () => {
  isLeaving = true;
  server.close(() => process.exit(0));
});
