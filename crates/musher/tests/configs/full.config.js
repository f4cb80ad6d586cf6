// The shape of a grown configuration: everything a team collects in a year.
module.exports = {
  apps: [
    {
      name: 'shop-api',
      script: './app.js',
      instances: 'max',
      exec_mode: 'cluster',
      watch: false,
      max_memory_restart: '2G',
      min_uptime: '10s',
      max_restarts: 10,
      restart_delay: 4000,
      exp_backoff_restart_delay: 100,
      kill_timeout: 5000,
      wait_ready: true,
      listen_timeout: 8000,
      log_date_format: 'YYYY-MM-DD HH:mm:ss Z',
      error_file: './logs/err.log',
      out_file: './logs/out.log',
      log_file: './logs/combined.log',
      merge_logs: true,
      node_args: '--max-old-space-size=1024',
      env: { NODE_ENV: 'development', PORT: 3000, REDIS_PASSWORD: '' },
      env_production: { NODE_ENV: 'production' },
    },
    { name: 'shop-worker', script: 'worker.py', cron_restart: '0 3 * * *', exec_mode: 'fork' },
  ],
  deploy: {
    production: { user: 'deploy', host: 'h', repo: 'r', path: '/p', ref: 'm', env: { REGION: 'eu' } },
  },
};
