// The shop: a small system in the shape many production Node systems have.
// Every setting here is one that an existing PM2 file may contain.

const path = require('node:path');

const logs = process.env.SHOP_LOGS || path.join(__dirname, 'logs');
const ports = {
  GATEWAY_PORT: Number(process.env.SHOP_GATEWAY_PORT || 18080),
  API_PORT: Number(process.env.SHOP_API_PORT || 18081),
  AUTH_PORT: Number(process.env.SHOP_AUTH_PORT || 18082),
};

const files = (name) => ({
  error_file: path.join(logs, `${name}-err.log`),
  out_file: path.join(logs, `${name}-out.log`),
  log_file: path.join(logs, `${name}-combined.log`),
  merge_logs: true,
  time: true,
});

const service = (name, port, settings) => ({
  name,
  script: `./${name}.js`,
  cwd: __dirname,
  exec_mode: 'cluster',
  wait_ready: true,
  listen_timeout: 10000,
  kill_timeout: 5000,
  min_uptime: '10s',
  max_restarts: 10,
  env: { NODE_ENV: 'development', ...ports, PORT: port },
  env_production: { NODE_ENV: 'production', ...ports, PORT: port },
  ...files(name),
  ...settings,
});

module.exports = {
  apps: [
    service('gateway', ports.GATEWAY_PORT, {
      instances: 'max',
      max_memory_restart: '300M',
      node_args: '--max-old-space-size=256',
    }),
    service('api', ports.API_PORT, {
      instances: 'max',
      max_memory_restart: '500M',
      node_args: '--max-old-space-size=384 --expose-gc',
    }),
    service('auth', ports.AUTH_PORT, {
      instances: 2,
      max_memory_restart: '200M',
      node_args: ['--max-old-space-size=128'],
    }),
    {
      name: 'worker',
      script: './worker.js',
      cwd: __dirname,
      exec_mode: 'fork',
      instances: 1,
      cron_restart: '0 3 * * *',
      max_memory_restart: '200M',
      kill_timeout: 5000,
      exp_backoff_restart_delay: 100,
      env: { NODE_ENV: 'development', ...ports, JOB_INTERVAL_MS: 1000 },
      env_production: { NODE_ENV: 'production', ...ports, JOB_INTERVAL_MS: 60000 },
      ...files('worker'),
    },
  ],
};
