// The background worker: a single instance, so that no job runs twice.

const { get } = require('./lib/upstream.js');

const interval = Number(process.env.JOB_INTERVAL_MS || 1000);
let jobs = 0;

async function tick() {
  jobs += 1;
  try {
    const { body } = await get(process.env.API_PORT, '/stats');
    console.log(`job ${jobs}: api instance ${body.worker.instance} uses ${body.heap} bytes of heap`);
  } catch (error) {
    console.error(`job ${jobs} failed: ${error.message}`);
  }
}

const timer = setInterval(tick, interval);
console.log(`worker started, a job every ${interval} ms`);

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    clearInterval(timer);
    console.log(`${signal}: ${jobs} jobs done, bye`);
    process.exit(0);
  });
}
