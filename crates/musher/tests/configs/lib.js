exports.port = 4100;
