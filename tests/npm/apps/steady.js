// Stays, writes what it got to both streams, and obeys a few IPC messages.
const facts = {
  args: process.argv.slice(2),
  cwd: process.cwd(),
  pid: process.pid,
  color: process.env.COLOR ?? null,
  instance: process.env.NODE_APP_INSTANCE ?? null,
  pm_id: process.env.pm_id ?? null,
  name: process.env.name ?? null,
  exec_mode: process.env.exec_mode ?? null,
  worker: require('node:cluster').isWorker,
};
process.on('message', (message) => {
  if (message?.topic === 'echo') {
    process.send({ type: 'echo:answer', data: { got: message, pid: process.pid } });
  } else if (message?.topic === 'say') {
    process.send(message.data.raw);
  } else if (message?.topic === 'print') {
    console.log(message.data.out);
    console.error(message.data.err);
  } else if (message === 'sum' || message?.msg === 'sum') {
    const data = { at: Date.now(), action_name: 'sum', return: { sum: message.opts ?? 'bare' } };
    process.send({ type: 'axm:reply', data });
  }
});
process.on('SIGUSR2', () => process.send({ type: 'got:signal', data: { pid: process.pid } }));
if (process.env.ACTION) {
  process.send({
    type: 'axm:action',
    data: { action_name: 'sum', action_type: 'custom', arity: 1, opts: null },
  });
}
// Last: whoever reads it may send signals.
console.log(`facts ${JSON.stringify(facts)}`);
console.error('to stderr');
setInterval(() => {}, 1 << 30);
