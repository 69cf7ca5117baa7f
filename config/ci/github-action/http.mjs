// HTTP with a bearer.
//
// Invariant: a token is sent over https, or to this machine itself, and to no other address than
// the one that was named: redirects are not followed.
import { setTimeout as sleep } from 'node:timers/promises';
import { Fault } from './fault.mjs';

const ATTEMPT_MS_MAX = 10_000;
const ATTEMPTS_MAX = 5;
// The pause before the second attempt; it doubles.
const PAUSE_MS = 500;
// Who asks for a longer pause than this is down for us.
const PAUSE_MS_MAX = 10_000;
// No answer that we know comes near this.
const BODY_BYTES_MAX = 1024 * 1024;

// The address `text`, without a slash at its end. `name` is what errors call it.
export function secureUrl(text, name) {
  if (text === '') throw new Fault(`${name} is empty; expected https://HOST`);
  let url;
  try {
    url = new URL(text);
  } catch {
    // It is not repeated: it could be a secret in the wrong place.
    throw new Fault(`${name} is not a URL; expected https://HOST`);
  }
  if (url.username || url.password) throw new Fault(`${name} must not hold a user or password`);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname))) {
    throw new Fault(`${name} would send tokens in clear; use https, or http on a loopback address`);
  }
  return url;
}

// Sends once. `body`, if any, goes as JSON. The answer: status, text, the pause that was asked for.
// Throws a Fault when there is none.
export async function send(url, { method = 'GET', bearer, body, headers = {}, withinMs = ATTEMPT_MS_MAX }) {
  try {
    const response = await fetch(url, {
      method,
      redirect: 'manual',
      signal: AbortSignal.timeout(withinMs),
      headers: {
        accept: 'application/json, application/problem+json',
        authorization: `Bearer ${bearer}`,
        'user-agent': 'dayfly-github-action',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await bounded(response);
    return { status: response.status, text, afterMs: retryAfterMs(response) };
  } catch (error) {
    throw unreachable(url, error);
  }
}

// Tries `attempt` again while it fails for a time only.
export async function persistently(attempt, attemptsMax = ATTEMPTS_MAX) {
  let pauseMs = PAUSE_MS;
  for (let left = attemptsMax - 1; ; left -= 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Fault) || !error.temporary || left <= 0) throw error;
      if (error.afterMs > PAUSE_MS_MAX) throw error;
      await sleep(jittered(Math.max(pauseMs, error.afterMs)));
      pauseMs *= 2;
    }
  }
}

export function isTemporary(status) {
  return status === 429 || (status >= 502 && status <= 504);
}

// An object from JSON, or nothing.
export function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function isLoopback(host) {
  return host === 'localhost' || host === '[::1]' || /^127(\.\d{1,3}){3}$/u.test(host);
}

async function bounded(response) {
  const chunks = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) throw new Fault(`${response.url} answered more than it should`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

// The form in seconds. The one with a date would have to trust two clocks.
function retryAfterMs(response) {
  const seconds = Number(response.headers.get('retry-after') ?? 0);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0;
}

function unreachable(url, error) {
  if (error instanceof Fault) return error;
  const { origin } = new URL(url);
  if (error?.name === 'TimeoutError') {
    return new Fault(`${origin} did not answer in time`, { temporary: true });
  }
  const code = String(error?.cause?.code ?? error?.cause?.message ?? error?.name ?? 'unknown');
  if (/CERT|SIGNATURE|SSL|TLS/u.test(code)) {
    return new Fault(
      `${origin} shows a certificate that is not trusted (${code}); `
      + 'have NODE_EXTRA_CA_CERTS name the file with its authority',
    );
  }
  return new Fault(`cannot reach ${origin} (${code})`, { temporary: true });
}

// Jobs that started together do not come back together.
function jittered(ms) {
  return ms * (0.9 + Math.random() * 0.2);
}
