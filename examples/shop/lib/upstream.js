// Calls another service of the shop over loopback.

const http = require('node:http');

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
const TIMEOUT_MS = 5000;

/** Resolves to `{ status, body }`, with `body` parsed from JSON. */
function get(port, path, attempt = 1) {
  return new Promise((resolve, reject) => {
    const req = http.get({ host: '127.0.0.1', port, path, agent, timeout: TIMEOUT_MS }, (res) => {
      const chunks = [];
      res.on('data', (chunk) => chunks.push(chunk));
      res.on('error', reject);
      res.on('end', () => {
        try {
          resolve({ status: res.statusCode, body: JSON.parse(Buffer.concat(chunks)) });
        } catch (error) {
          reject(error);
        }
      });
    });
    req.on('timeout', () => req.destroy(new Error(`no answer from port ${port} in ${TIMEOUT_MS} ms`)));
    req.on('error', (error) => {
      // A pooled connection may be closed by the other side at the very moment
      // it is used again. A GET may be repeated, and Node's documentation of
      // `request.reusedSocket` asks for it.
      if (req.reusedSocket && error.code === 'ECONNRESET' && attempt < 4) {
        get(port, path, attempt + 1).then(resolve, reject);
      } else {
        reject(error);
      }
    });
  });
}

module.exports = { get };
