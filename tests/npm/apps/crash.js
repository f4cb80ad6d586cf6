console.error('crashing at once');
process.exit(3);
