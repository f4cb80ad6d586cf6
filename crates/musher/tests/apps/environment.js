'use strict';
// Tells what an app, its child and its worker thread see of how they were started.
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { spawnSync } = require('child_process');

const seen = () => ({
  options: 'NODE_OPTIONS' in process.env ? process.env.NODE_OPTIONS : null,
  execArgv: process.execArgv,
  cached: Object.keys(require.cache).filter((name) => /agent-/.test(name)),
  gc: typeof gc,
  main: require.main === module,
});
if (!isMainThread) parentPort.postMessage(seen());
else {
  const text = 'console.log(JSON.stringify("NODE_OPTIONS" in process.env ? process.env.NODE_OPTIONS : null))';
  const child = JSON.parse(spawnSync(process.execPath, ['-e', text]).stdout);
  const worker = new Worker(__filename);
  worker.on('message', (thread) => console.log(JSON.stringify({ event: 'seen', ...seen(), child, thread })));
  worker.on('error', (error) => console.log(JSON.stringify({ event: 'seen', error: error.message })));
  require('http').createServer((_, response) => response.end('ok')).listen(Number(process.env.APP_PORT));
}
