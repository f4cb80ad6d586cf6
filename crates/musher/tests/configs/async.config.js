module.exports = async () => ({ apps: [{ name: 'later', script: 'app.js' }] });
