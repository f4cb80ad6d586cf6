// Express as its documentation shows it; no code for its end.
const app = require('express')();
app.get('/', (_, res) => res.send(`ok ${process.pid}`));
app.listen(Number(process.env.PORT), '127.0.0.1');
