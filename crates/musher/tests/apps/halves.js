// Prints numbered lines, a hundred a time, and never ends with a whole one.
let n = 0;
let begun = "";
setInterval(() => {
  let text = begun;
  for (const end = n + 100; n < end; n++) text += `tick ${n}\n`;
  begun = text.slice(-4);
  process.stdout.write(text.slice(0, -4));
}, 1);
