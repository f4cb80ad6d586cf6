// Listens a second and a half after it was started.
const server = require('http').createServer((_, res) => res.end(`ok ${process.pid}`));
setTimeout(() => server.listen(Number(process.env.PORT), '127.0.0.1'), 1500);
process.on('SIGINT', () => server.close(() => process.exit(0)));
