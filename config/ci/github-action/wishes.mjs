// The inputs, understood.
//
// Invariant: what is wrong with an input is told before anything is asked for, and nothing that was
// accepted is checked again later.
import { Fault } from './fault.mjs';
import { secureUrl } from './http.mjs';
import { input, printable } from './runner.mjs';

const EXPORTS = ['outputs', 'file', 'env'];
const NAME = '[A-Za-z_][A-Za-z0-9_]*';
// Characters of a purpose that a broker accepts.
const PURPOSE_CHARS_MAX = 256;

// All inputs. Throws a Fault that names the one that is wrong.
export function wishes() {
  const url = secureUrl(input('url'), '`url`');
  if (url.search || url.hash) throw new Fault('`url` must not hold `?` or `#`');
  const address = url.href.replace(/\/+$/u, '');
  const roles = roleList(input('roles'));
  return {
    url: address,
    audience: input('audience') || address,
    roles,
    fields: fieldList(input('fields'), roles),
    exports: exportList(input('export')),
    ttlSeconds: seconds(input('ttl')),
    purpose: purpose(),
  };
}

function roleList(text) {
  const roles = words(text).map((word) => {
    const match = new RegExp(`^(?:(${NAME})=)?([^=/]+)$`, 'u').exec(word);
    if (!match) throw new Fault(`\`roles\`: \`${word}\` is not ROLE or NAME=ROLE`);
    return { prefix: match[1], role: match[2] };
  });
  if (roles.length === 0) throw new Fault('`roles` is empty; name the roles to get credentials for');
  if (new Set(words(text)).size < roles.length) {
    throw new Fault('`roles` names a role twice; a second one needs a name: NAME=ROLE');
  }
  return roles;
}

function fieldList(text, roles) {
  return words(text).map((word) => {
    const match = new RegExp(`^(${NAME})=([^/]+)/([^/]+)$`, 'u').exec(word);
    if (!match) throw new Fault(`\`fields\`: \`${word}\` is not VARIABLE=ROLE/FIELD`);
    const [, variable, role, field] = match;
    if (!roles.some((wish) => wish.role === role)) {
      throw new Fault(`\`fields\`: role \`${role}\` is not one of \`roles\``);
    }
    return { variable, role, field };
  });
}

function exportList(text) {
  const wanted = words(text);
  if (wanted.length === 0 || (wanted.length === 1 && wanted[0] === 'none')) return [];
  const unknown = wanted.find((word) => !EXPORTS.includes(word));
  if (unknown) throw new Fault(`\`export\`: \`${unknown}\` is not known; none, or any of ${EXPORTS.join(', ')}`);
  return wanted;
}

// `90s`, `15m`, `1h30m`. A number without a unit is refused: readers disagree on what it is.
function seconds(text) {
  const match = /^(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?$/u.exec(text);
  const [hours, minutes, rest] = (match ?? []).slice(1).map((part) => Number(part ?? 0));
  const total = match ? hours * 3600 + minutes * 60 + rest : 0;
  if (total === 0) throw new Fault('`ttl` is not a time such as 90s, 15m or 1h30m');
  return total;
}

function purpose() {
  const { GITHUB_REPOSITORY, GITHUB_WORKFLOW, GITHUB_JOB, GITHUB_RUN_ID, GITHUB_RUN_ATTEMPT } = process.env;
  const usual = `${GITHUB_REPOSITORY}: ${GITHUB_WORKFLOW}/${GITHUB_JOB}, run ${GITHUB_RUN_ID}/${GITHUB_RUN_ATTEMPT}`;
  return [...printable(input('reason') || usual)].slice(0, PURPOSE_CHARS_MAX).join('');
}

function words(text) {
  return text.split(/[\s,]+/u).filter((word) => word !== '');
}
