// Ignores every signal that can be ignored.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP']) process.on(signal, () => {});
setInterval(() => {}, 1000);
console.log('stubborn');
