interface App { name: string; script: string }
const app: App = { name: 'typed', script: 'app.js' };
export default { apps: [app] };
