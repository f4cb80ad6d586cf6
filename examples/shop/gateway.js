// The gateway: the only service the outside talks to. Asks `auth` who is
// calling and `api` for the answer.

const { serve, sendJson, whoami } = require('./lib/serve.js');
const { get } = require('./lib/upstream.js');

const { PORT, API_PORT, AUTH_PORT } = process.env;

serve(Number(PORT), {
  '/': (req, res) => sendJson(res, 200, { gateway: whoami() }),

  '/items': async (req, res, url) => {
    const auth = await get(AUTH_PORT, `/whois?token=${url.searchParams.get('token') || 'guest'}`);
    if (auth.status !== 200) return sendJson(res, 401, { error: 'unknown token' });
    const api = await get(API_PORT, '/items');
    sendJson(res, api.status, {
      items: api.body.items,
      user: auth.body.user,
      answered_by: { gateway: whoami(), auth: auth.body.worker, api: api.body.worker },
    });
  },
});
