module.exports = () => ({ apps: [{ name: 'called', script: 'app.js' }] });
