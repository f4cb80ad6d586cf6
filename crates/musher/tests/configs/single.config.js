module.exports = { name: 'single', script: 'app.js' };
