// The floor: npm `ws` sends every message back. Prints its port, and ends when stdin closes.
'use strict';

const { WebSocketServer } = require('ws');

const server = new WebSocketServer({ host: '127.0.0.1', port: 0 }, () => console.log(server.address().port));

server.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
