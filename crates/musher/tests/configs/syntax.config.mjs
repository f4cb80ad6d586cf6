export default {
  apps: [ { name: 'x', script: 'app.js' 
};
