// An HTTP server without any code for its end; it answers with its pid, so that
// the load sees who answers.
require('node:http')
  .createServer((req, res) => res.end(`ok ${process.pid}`))
  .listen(Number(process.env.PORT), '127.0.0.1', () => process.send && process.send('ready'));
