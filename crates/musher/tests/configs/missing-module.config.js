module.exports = require('./not-there.js');
