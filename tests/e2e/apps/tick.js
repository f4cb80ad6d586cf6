// Prints a numbered line every 10 ms, for ever.
let n = 0;
setInterval(() => console.log(`tick ${n++}`), 10);
