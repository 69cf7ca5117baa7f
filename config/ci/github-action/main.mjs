// The step itself: opens a task, mints its credentials, hands them to later steps.
//
// Invariant: the post step knows of the task before anything is minted under it, and a secret is
// masked before anything else is done with it.
import { complete, mint, openTask } from './broker.mjs';
import { deliver, maskLease, variables } from './delivery.mjs';
import { describe } from './fault.mjs';
import { claims, identityToken } from './identity.mjs';
import { fail, mask, notice, saveState, say, setOutput } from './runner.mjs';
import { wishes } from './wishes.mjs';

// What the latest identity token says, for the one who must find out why it was not enough.
let shown = [];

try {
  await main(wishes());
} catch (error) {
  if (error.status === 401 || error.status === 403) explain();
  fail(describe(error));
}

async function main(wanted) {
  const task = await open(wanted);
  setOutput('task-id', task.id);
  if (wanted.exports.length === 0) {
    notice('the broker knows this job; no credential was made, since `export` is none. Run what needs one '
      + 'with `dayfly exec`, or set `export` to outputs, file or env');
    return;
  }
  try {
    const leases = await mintAll(wanted, task);
    deliver(variables(wanted, leases), wanted.exports);
    setOutput('lease-ids', JSON.stringify(leases.map((lease) => lease.id)));
    setOutput('expires-at', leases.map((lease) => lease.expires_at).sort()[0]);
  } catch (error) {
    // All or nothing. The post step would do it as well, but only at the end of the job.
    await complete(wanted.url, task.token, task.id, 'cancelled').catch(() => {});
    throw error;
  }
}

async function open({ url, audience, purpose, ttlSeconds }) {
  const token = async () => {
    const fresh = await identityToken(audience);
    shown = claims(fresh);
    return fresh;
  };
  const task = await openTask(url, token, { purpose, ttlSeconds });
  mask(task.token);
  saveState('url', url);
  saveState('token', task.token);
  saveState('ends', task.expires_at);
  saveState('task', task.id);
  return task;
}

// One after the other: a refusal comes before more has been made.
async function mintAll({ url, roles, ttlSeconds }, task) {
  const leases = [];
  for (const role of new Set(roles.map((wish) => wish.role))) {
    const lease = await mint(url, task.token, role, ttlSeconds);
    maskLease(lease);
    say(`task ${task.id}: role \`${role}\` → lease ${lease.id} (${lease.backend}, until ${lease.expires_at})`);
    leases.push(lease);
  }
  return leases;
}

function explain() {
  if (shown.length === 0) return;
  say('what the identity token says, to be compared with the broker\'s issuers and rules:');
  for (const line of shown) say(`  ${line}`);
}
