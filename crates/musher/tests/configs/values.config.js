module.exports = {
  apps: [{ name: 'values', script: 'app.js', post_deploy() {}, ignore_watch: [/tmp/],
    env: { BIG: 10n, GONE: undefined, LIST: [1, 2], NONE: null, DEEP: { a: 1 } } }],
};
