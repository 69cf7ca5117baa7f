// After the job, however it ended: completes the task, so that its credentials are dead, and deletes
// what was written.
//
// Invariant: nothing that fails here fails the job; what remains ends by itself, and the log says when.
import { complete, owed } from './broker.mjs';
import { cleanUp } from './delivery.mjs';
import { describe } from './fault.mjs';
import { input, savedState, say, warn } from './runner.mjs';

// How a job ends, and what a task calls it.
const OUTCOMES = { success: 'completed', failure: 'failed', cancelled: 'cancelled' };

try {
  cleanUp(savedState('directory'));
} catch (error) {
  warn(`could not delete what was written for later steps: ${describe(error)}`);
}
const task = savedState('task');
if (task === '') {
  say('no task was opened');
} else {
  await end(task);
}

async function end(id) {
  const outcome = OUTCOMES[input('job-status').toLowerCase()] ?? 'completed';
  try {
    const ended = await complete(savedState('url'), savedState('token'), id, outcome);
    if (owed(ended) === 0) {
      say(`task ${id} ${ended.state}: ${ended.leases?.revoked ?? 0} credential(s) verified dead`);
    } else if (ended.residual_until) {
      warn(`task ${id}: ${owed(ended)} credential(s) cannot be ended at their backend and work until ${ended.residual_until}`);
    } else {
      warn(`task ${id}: ${owed(ended)} credential(s) not yet verified dead; the broker goes on revoking`);
    }
  } catch (error) {
    warn(`could not complete task ${id}: ${describe(error)}. Its credentials end by themselves, at ${savedState('ends')} at the latest`);
  }
}
