module.exports = { apps: [{ name: process.argv.slice(2).join('-'), script: 'app.js' }] };
