module.exports = {
  apps: [
    { name: 'api', script: './app.js', instances: 2, exec_mode: 'cluster' },
  ],
};
