module.exports = { apps: { name: 'alone', script: 'app.js' } };
