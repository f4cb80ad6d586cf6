// An HTTP server that starts and stops the way a process manager expects:
// `ready` is sent after the port is bound, and SIGINT ends it without cutting
// a request.

const http = require('node:http');
const net = require('node:net');

// How long busy keep-alive clients get to see `Connection: close` before
// connections that carry no request are closed from this side.
const DRAIN_MS = Number(process.env.DRAIN_MS || 1000);

/** Who answers: shown in every response, so that balancing can be seen. */
const whoami = () => ({
  app: process.env.name || 'unmanaged',
  instance: process.env.NODE_APP_INSTANCE || '0',
  pid: process.pid,
});

function sendJson(res, status, body) {
  const text = JSON.stringify(body) + '\n';
  res.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  });
  res.end(text);
}

/**
 * Serves `routes` (a map from path to `(req, res, url)`) on `port` and adds
 * `/health`. Unknown paths answer 404, a throwing route answers 500.
 */
function serve(port, routes) {
  let draining = false;

  const server = http.createServer(async (req, res) => {
    if (draining) res.setHeader('connection', 'close');
    const url = new URL(req.url, 'http://localhost');
    const route = routes[url.pathname];
    try {
      if (url.pathname === '/health') {
        sendJson(res, 200, { status: 'ok', uptime: process.uptime(), worker: whoami() });
      } else if (route) {
        await route(req, res, url);
      } else {
        sendJson(res, 404, { error: `nothing at ${url.pathname}` });
      }
    } catch (error) {
      console.error(`${req.method} ${req.url} failed: ${error.message}`);
      if (!res.headersSent) sendJson(res, 500, { error: error.message });
    }
  });

  server.on('error', (error) => {
    console.error(`cannot serve on port ${port}: ${error.message}`);
    process.exit(1);
  });

  server.listen(port, '127.0.0.1', () => {
    console.log(`listening on ${port} as ${JSON.stringify(whoami())}`);
    if (process.send) process.send('ready');
  });

  const stop = (signal) => {
    if (draining) return;
    draining = true;
    console.log(`${signal}: draining`);
    // http.Server.close() would also cut idle keep-alive connections at once,
    // and a client may be writing its next request to one of them.
    net.Server.prototype.close.call(server, () => {
      console.log('drained, bye');
      process.exit(0);
    });
    setTimeout(() => {
      server.closeIdleConnections();
      setInterval(() => server.closeIdleConnections(), 100).unref();
    }, DRAIN_MS).unref();
  };
  process.on('SIGINT', () => stop('SIGINT'));
  process.on('SIGTERM', () => stop('SIGTERM'));

  return server;
}

module.exports = { serve, sendJson, whoami };
