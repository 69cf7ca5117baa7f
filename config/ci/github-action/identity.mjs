// The job's identity: a token of GitHub's, made for one audience and one use.
//
// Invariant: a token is masked before anything else is done with it.
import { readFileSync } from 'node:fs';
import { Fault } from './fault.mjs';
import { isTemporary, parsed, secureUrl, send } from './http.mjs';
import { mask, printable } from './runner.mjs';

// What rules speak of, to be compared with what they ask for. None of it is secret.
const SHOWN = [
  'iss', 'aud', 'sub', 'repository', 'repository_id', 'repository_owner_id', 'event_name', 'ref',
  'ref_protected', 'environment', 'job_workflow_ref', 'runner_environment',
];

const NO_PERMISSION = 'this job may not ask for an identity token; add to it '
  + '`permissions: { id-token: write, contents: read }` (what is not named there is taken away), '
  + 'and in a reusable workflow to the job that calls it as well';
const FORK = 'GitHub gives no identity token to a pull request from a fork, whatever `permissions` '
  + 'says; leave this step out for them: '
  + '`if: github.event.pull_request.head.repo.full_name == github.repository`';

// A fresh token for `audience`. Throws a Fault.
export async function identityToken(audience) {
  const { ACTIONS_ID_TOKEN_REQUEST_URL: address, ACTIONS_ID_TOKEN_REQUEST_TOKEN: bearer } = process.env;
  if (!address || !bearer) throw new Fault(isFromFork() ? FORK : NO_PERMISSION);
  mask(bearer);
  const url = secureUrl(address, 'ACTIONS_ID_TOKEN_REQUEST_URL');
  url.searchParams.append('audience', audience);
  const { status, text, afterMs } = await send(url, { bearer });
  if (status !== 200) {
    throw new Fault(`GitHub gave no identity token: it answered ${status}`, {
      temporary: status === 500 || isTemporary(status), afterMs, status,
    });
  }
  const token = parsed(text)?.value;
  if (typeof token !== 'string' || token === '') {
    throw new Fault('GitHub gave no identity token: its answer holds none');
  }
  mask(token);
  return token;
}

// What the token says that rules may ask for: lines `claim: value`.
export function claims(token) {
  const payload = parsed(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8')) ?? {};
  return SHOWN.filter((name) => payload[name] !== undefined)
    .map((name) => `${name}: ${printable(String(payload[name]))}`);
}

function isFromFork() {
  try {
    const { pull_request: request } = JSON.parse(readFileSync(process.env.GITHUB_EVENT_PATH, 'utf8'));
    return request.head.repo?.full_name !== request.base.repo.full_name;
  } catch {
    // No pull request, or not told.
    return false;
  }
}
