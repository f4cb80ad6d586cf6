// Each answer takes 300 to 800 ms; no code for its end.
const server = require('http').createServer((_, res) => {
  setTimeout(() => res.end(`ok ${process.pid}`), 300 + Math.random() * 500);
});
server.listen(Number(process.env.PORT), '127.0.0.1');
