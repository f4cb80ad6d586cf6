// An app without any code for its end.
const server = require('http').createServer((_, res) => res.end(`ok ${process.pid}`));
if (process.env.KEEP_ALIVE_MS) server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_MS);
server.listen(Number(process.env.PORT), '127.0.0.1');
