module.exports = [{ name: 'one', script: 'app.js' }, { name: 'two', script: 'app.js' }];
