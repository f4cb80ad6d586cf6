// Runs, listens on nothing, says nothing.
setInterval(() => {}, 1000);
