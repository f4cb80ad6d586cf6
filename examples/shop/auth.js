// The auth service: turns a token into a user.

const crypto = require('node:crypto');
const { serve, sendJson, whoami } = require('./lib/serve.js');

serve(Number(process.env.PORT), {
  '/whois': (req, res, url) => {
    const token = url.searchParams.get('token');
    if (!token) return sendJson(res, 401, { error: 'no token' });
    const user = crypto.createHash('sha256').update(token).digest('hex').slice(0, 8);
    sendJson(res, 200, { user, worker: whoami() });
  },
});
