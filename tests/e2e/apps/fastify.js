// Fastify as its documentation shows it; no code for its end.
const app = require('fastify')();
app.get('/', async () => `ok ${process.pid}`);
app.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });
