module.exports = {
  apps: [
    { name: 'x' script: 'app.js' },
  ],
};
