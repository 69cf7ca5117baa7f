// A service that keeps one connection, and opens another when that was ended.
//
// The package `pg` reads the password from the password file (PGPASSFILE) at each connection; the
// user's name is read from a file beside it (PG_USER_FILE). Runs until it has been so many different
// users, and prints them.
// Usage: PEERS=DIR node pg-service.mjs USERS
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { setTimeout as pause } from 'node:timers/promises';

const wanted = Number(process.argv[2]);
const patience = 120_000;
const { Client } = createRequire(`${process.env.PEERS}/`)('pg');

async function connect() {
  // The two files are not replaced at one stroke: who reads in between tries again.
  for (let attemptsLeft = 2; ; attemptsLeft -= 1) {
    const client = new Client({ user: await readFile(process.env.PG_USER_FILE, 'utf8') });
    // The query that fails says it as well.
    client.on('error', () => {});
    try {
      await client.connect();
      return client;
    } catch (error) {
      if (attemptsLeft === 0) throw error;
      await pause(200);
    }
  }
}

const users = new Set();
let ended = 0;
const begun = performance.now();
let client = await connect();
while (users.size < wanted && performance.now() - begun < patience) {
  try {
    const { rows } = await client.query('select current_user from app.notes');
    users.add(rows[0].current_user);
  } catch {
    ended += 1;
    client = await connect();
  }
  await pause(100);
}
await client.end();
console.log([...users].join('\n'));
console.log(`connections that were ended: ${ended}`);
