module.exports = {
  apps: [
    { name: 'fine', script: 'app.js', instances: 2 },
    {
      name: 'x',
      script: './gone.js',
      instances: 'lots',
      max_memory_restart: '5 potatoes',
      wacth: true,
    },
    { name: 'fine', script: 'app.js', autorestart: 'yes' },
  ],
};
