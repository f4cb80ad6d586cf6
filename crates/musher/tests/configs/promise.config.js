module.exports = Promise.resolve({ apps: [{ name: 'promised', script: 'app.js' }] });
