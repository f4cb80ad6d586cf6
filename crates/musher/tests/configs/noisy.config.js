console.log('{"apps": []}');
process.stdout.write('noise');
module.exports = { apps: [{ name: 'noisy', script: 'app.js' }] };
setInterval(() => {}, 1000);
