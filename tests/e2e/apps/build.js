// A program of which builds differ: the file BUILD says what this one does.
const build = require('fs').readFileSync(process.env.BUILD, 'utf8').trim();
let status = 200;
const server = require('http').createServer((_, res) => {
  res.statusCode = status;
  res.end(`ok ${process.pid}`);
});
const listen = (then) => server.listen(Number(process.env.PORT), '127.0.0.1', then);
const builds = {
  good: () => listen(),
  exits() {
    console.error('build: cannot find the table users');
    process.exit(3);
  },
  silent() {
    console.error('build: waiting for the database');
    setInterval(() => {}, 1000);
  },
  answers_500() {
    console.error('build: every answer is an error');
    status = 500;
    listen();
  },
  crashes_late() {
    listen(() => setTimeout(() => {
      console.error('build: out of luck after 200 ms');
      process.exit(4);
    }, 200));
  },
};
builds[build]();
process.on('SIGINT', () => server.close(() => process.exit(0)));
