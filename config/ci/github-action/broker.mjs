// The calls of Dayfly's API that a job makes.
//
// Invariant: each call may be repeated. A task that is opened in vain holds no credential, and a
// mint goes under a key for which at most one credential lives.
import { Fault } from './fault.mjs';
import { isTemporary, parsed, persistently, send } from './http.mjs';

// How long the post step lets the broker look whether the credentials are dead.
const WAIT_S = 5;
// And how long it waits for the answer, which takes a moment more.
const WAIT_MS_MAX = (WAIT_S + 3) * 1000;

// Opens a task. `token` makes a fresh identity token: each opens one task at most, so that the next
// attempt needs another one.
export function openTask(url, token, { purpose, ttlSeconds }) {
  const body = { purpose, ttl_seconds: ttlSeconds };
  return persistently(async () => call(url, ['tasks'], await token(), { body }));
}

// Mints `role` for the task whose token is `bearer`.
export function mint(url, bearer, role, ttlSeconds) {
  const body = { role, ttl_seconds: ttlSeconds };
  const headers = { 'idempotency-key': role };
  return persistently(() => call(url, ['leases'], bearer, { body, headers })).catch((error) => {
    throw named(role, error);
  });
}

// Ends the task, twice tried at most: the job waits.
export function complete(url, bearer, task, outcome) {
  const options = { body: { outcome }, query: { wait: `${WAIT_S}s` }, withinMs: WAIT_MS_MAX };
  return persistently(() => call(url, ['tasks', task, 'complete'], bearer, options), 2);
}

// How many credentials of a completed task may still live.
export function owed({ leases = {} }) {
  const { pending = 0, active = 0, revoking = 0 } = leases;
  return pending + active + revoking;
}

async function call(base, path, bearer, { body, headers, query = {}, withinMs }) {
  const url = new URL(base);
  const segments = ['api', 'v1', ...path].map(encodeURIComponent);
  url.pathname = `${url.pathname.replace(/\/+$/u, '')}/${segments.join('/')}`;
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  const { status, text, afterMs } = await send(url, { method: 'POST', bearer, body, headers, withinMs });
  const answer = parsed(text);
  if (status >= 200 && status < 300 && answer) return answer;
  if (status >= 300 && status < 400) {
    throw new Fault(`${url.origin} redirects (${status}); give the broker's own address as \`url\``, { status });
  }
  if (!answer?.code) {
    throw new Fault(`${url.origin} answered ${status}, and not as a Dayfly broker does; check \`url\``, {
      temporary: isTemporary(status), afterMs, status,
    });
  }
  // The first attempt may still be at work.
  const inFlight = answer.code === 'idempotency_in_progress';
  throw new Fault(sentence(answer), { temporary: answer.retryable === true || inFlight, afterMs, status });
}

// An RFC 9457 problem: what, by which rule, and how to find it in the broker's log.
function sentence({ detail, denied_by: rule, request_id: request, errors }) {
  let text = String(detail).replace(/\.$/u, '');
  if (rule && !text.includes(rule)) text += ` (rule \`${rule}\`)`;
  for (const fault of Array.isArray(errors) ? errors : []) {
    if (fault.pointer && fault.detail && fault.detail !== detail) {
      text += `; \`${fault.pointer}\`: ${fault.detail}`;
    }
  }
  return `${text} (request ${request})`;
}

function named(role, error) {
  if (!(error instanceof Fault)) return error;
  const { temporary, afterMs, status } = error;
  const what = status === 403 ? 'was denied' : 'was not minted';
  return new Fault(`role \`${role}\` ${what}: ${error.message}`, { temporary, afterMs, status });
}
