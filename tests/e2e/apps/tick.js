// Prints a numbered line every LINE_MS (10), for ever.
let n = 0;
setInterval(() => console.log(`tick ${n++}`), Number(process.env.LINE_MS || 10));
