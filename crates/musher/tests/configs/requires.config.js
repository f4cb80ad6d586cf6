const { port } = require('./lib.js');
const path = require('path');
module.exports = { apps: [{ name: 'req', script: path.join(__dirname, 'app.js'), port }] };
