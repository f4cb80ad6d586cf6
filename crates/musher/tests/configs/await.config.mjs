const name = await Promise.resolve('awaited');
export default { apps: [{ name, script: 'app.js' }] };
