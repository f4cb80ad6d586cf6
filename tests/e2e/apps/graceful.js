// Shuts down as Node's documentation shows it: close the server, then leave.
const server = require('http').createServer((_, res) => res.end(`ok ${process.pid}`));
server.listen(Number(process.env.PORT), '127.0.0.1');
process.on('SIGINT', () => server.close(() => process.exit(0)));
