// Holds 120 MB.
const held = [];
for (let i = 0; i < 12; i++) held.push(Buffer.alloc(10 * 1024 * 1024, 1));
setInterval(() => held.length, 1000);
