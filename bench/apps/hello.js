// The smallest HTTP server: what is measured is the manager around it.
require('node:http')
  .createServer((req, res) => res.end('hello\n'))
  .listen(Number(process.env.PORT), '127.0.0.1', () => process.send && process.send('ready'));
