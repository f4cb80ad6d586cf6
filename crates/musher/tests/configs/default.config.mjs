const apps = [{ name: 'mjs', script: 'app.js' }];
export default { apps };
