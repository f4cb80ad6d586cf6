// The API: answers with the shop's goods.

const { serve, sendJson, whoami } = require('./lib/serve.js');

const items = [
  { id: 1, name: 'harness', price: 40 },
  { id: 2, name: 'lantern', price: 25 },
  { id: 3, name: 'sled', price: 310 },
];
let orders = 0;

serve(Number(process.env.PORT), {
  '/items': (req, res) => sendJson(res, 200, { items, worker: whoami() }),
  '/stats': (req, res) => {
    orders += 1;
    sendJson(res, 200, { asked: orders, heap: process.memoryUsage().heapUsed, worker: whoami() });
  },
});
