export default { apps: [{ name: 'esm', script: 'app.js' }] };
