// From leases to what later steps find.
//
// Invariant: a role can't set a variable by which its author would run code here, and two
// credentials never share one.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { Fault } from './fault.mjs';
import { mask, saveState, setOutput, setVariable, warn } from './runner.mjs';

// Fields that may be shown; a mask on `app` or `5432` would blacken the log. All others are masked.
const PUBLIC = ['database', 'expiration', 'host', 'port', 'region', 'username', 'vhost'];

// Names by which programs are steered rather than informed; `dayfly exec` refuses the same.
const RESERVED = new Set([
  'BASH_ENV', 'BROWSER', 'CDPATH', 'CLASSPATH', 'CORECLR_PROFILER', 'CORECLR_PROFILER_PATH',
  'DOTNET_STARTUP_HOOKS', 'EDITOR', 'ENV', 'GCONV_PATH', 'GEM_HOME', 'GEM_PATH', 'GITHUB_ENV',
  'GITHUB_OUTPUT', 'GITHUB_PATH', 'GITHUB_STATE', 'GITHUB_STEP_SUMMARY', 'GIT_ASKPASS', 'GIT_DIR',
  'GIT_EDITOR', 'GIT_EXEC_PATH', 'GIT_EXTERNAL_DIFF', 'GIT_PAGER', 'GIT_PROXY_COMMAND',
  'GIT_SEQUENCE_EDITOR', 'GIT_SSH', 'GIT_SSH_COMMAND', 'GIT_TEMPLATE_DIR', 'GLIBC_TUNABLES',
  'GOFLAGS', 'GRADLE_OPTS', 'HOME', 'IFS', 'JAVA_OPTS', 'JAVA_TOOL_OPTIONS', 'JDK_JAVA_OPTIONS',
  'LESSCLOSE', 'LESSOPEN', 'MAKEFILES', 'MAKEFLAGS', 'MANPAGER', 'MAVEN_OPTS',
  'NODE_EXTRA_CA_CERTS', 'NODE_OPTIONS', 'NODE_PATH', 'OLDPWD', 'OPENSSL_CONF', 'OPENSSL_MODULES',
  'PAGER', 'PATH', 'PERL5DB', 'PERL5LIB', 'PERL5OPT', 'PERLLIB', 'PHPRC', 'PHP_INI_SCAN_DIR',
  'PROMPT_COMMAND', 'PS0', 'PS1', 'PS2', 'PS3', 'PS4', 'PSQL_EDITOR', 'PSQL_PAGER', 'PWD',
  'PYTHONBREAKPOINT', 'PYTHONHOME', 'PYTHONINSPECT', 'PYTHONPATH', 'PYTHONSTARTUP',
  'PYTHONUSERBASE', 'RUBYLIB', 'RUBYOPT', 'RUSTC', 'RUSTC_WORKSPACE_WRAPPER', 'RUSTC_WRAPPER',
  'SHELL', 'SHELLOPTS', 'SSH_ASKPASS', 'SSL_CERT_DIR', 'SSL_CERT_FILE', 'TERM', 'TERMINFO', 'USER',
  'VISUAL', 'XDG_CONFIG_DIRS', 'XDG_CONFIG_HOME', 'ZDOTDIR', '_JAVA_OPTIONS',
]);
const RESERVED_PATTERN =
  /^(?:ACTIONS_|BASH_FUNC_|CARGO_BUILD_|CARGO_TARGET_|DAYFLY_(?!API_KEY$)|DYLD_|GIT_CONFIG|GIT_TRACE|LD_|LUA_INIT|NPM_CONFIG_|RUNNER_)|_PROXY$/u;
// What the names of our directories begin with.
const PREFIX = 'dayfly-';
// What a shell, the system and the runner read alike.
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/u;

// Masks what is secret of a lease. To be called before anything else is done with it.
export function maskLease(lease) {
  for (const [field, value] of Object.entries(lease.credential ?? {})) {
    if (field === '_env' || PUBLIC.includes(field) || typeof value !== 'string') continue;
    if (!mask(value)) warn(`\`${field}\` of role \`${lease.role}\` is too short to be hidden in logs`);
  }
}

// The variables that the roles name for their credentials, or those of `fields` instead.
export function variables({ roles, fields }, leases) {
  const credential = (role) => leases.find((lease) => lease.role === role)?.credential ?? {};
  const found = fields.length > 0
    ? fields.map(({ variable, role, field }) => ({ name: variable, role, field }))
    : roles.flatMap(({ prefix, role }) => {
      const named = Object.entries(credential(role)._env ?? {});
      if (named.length === 0) throw new Fault(`role \`${role}\` names no variables; say them in \`fields\``);
      return named.map(([name, field]) => ({ name: prefix ? `${prefix}_${name}` : name, role, field }));
    });
  const values = new Map();
  for (const { name, role, field } of found) {
    const value = field === '_env' ? undefined : credential(role)[field];
    if (typeof value !== 'string') throw new Fault(`the credential of role \`${role}\` has no \`${field}\``);
    check(name, role, value);
    if (values.has(name)) throw new Fault(`two credentials would be ${name}; give one a name: NAME=ROLE`);
    values.set(name, value);
  }
  return values;
}

// Puts `values` where they are wanted.
export function deliver(values, exports) {
  if (exports.includes('file')) setOutput('env-file', writeFile(values));
  for (const [name, value] of values) {
    if (exports.includes('outputs')) setOutput(name, value);
    if (exports.includes('env')) setVariable(name, value);
  }
}

// Deletes what `deliver` wrote; `directory` as it was saved.
export function cleanUp(directory) {
  if (directory === '') return;
  // Only what we made ourselves, whoever wrote the state.
  const ours = dirname(resolve(directory)) === resolve(temporary()) && basename(directory).startsWith(PREFIX);
  if (!ours) throw new Fault('the saved directory is not ours');
  rmSync(directory, { recursive: true, force: true });
}

function check(name, role, value) {
  const fault = (reason) => new Fault(`role \`${role}\` sets ${name}, which ${reason}`);
  if (!VARIABLE.test(name)) throw fault('is not a variable\'s name');
  if (RESERVED.has(name) || RESERVED_PATTERN.test(name.toUpperCase())) {
    throw fault('is reserved: it could run code');
  }
  if (value.includes('\0')) throw fault('has a value with a NUL');
}

// A file to be sourced, in a directory that only this user can enter and that is in no checkout.
function writeFile(values) {
  const directory = mkdtempSync(join(temporary(), PREFIX));
  saveState('directory', directory);
  const path = join(directory, 'env');
  const lines = [...values].map(([name, value]) => `export ${name}='${value.replaceAll('\'', '\'\\\'\'')}'\n`);
  writeFileSync(path, lines.join(''), { flag: 'wx', mode: 0o600 });
  return path;
}

function temporary() {
  const directory = process.env.RUNNER_TEMP;
  if (!directory) throw new Fault('RUNNER_TEMP is not set: this runs only as a step of GitHub Actions');
  return directory;
}
