// What the runner of GitHub Actions understands: commands on stdout, and the files that
// GITHUB_OUTPUT, GITHUB_STATE and GITHUB_ENV name.
//
// Invariant: what is printed can't be taken for another command, and a value is written between
// delimiters that it does not contain.
import { randomBytes } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { Fault } from './fault.mjs';

// Masking something shorter would blacken half of the log, and would hide nothing.
const MASKED_CHARS_MIN = 8;

export function input(name) {
  return (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim();
}

// What the main step saved for the post step; empty if it did not get that far.
export function savedState(name) {
  return process.env[`STATE_${name}`] ?? '';
}

export function saveState(name, value) {
  append('GITHUB_STATE', name, value);
}

export function setOutput(name, value) {
  append('GITHUB_OUTPUT', name, value);
}

export function setVariable(name, value) {
  append('GITHUB_ENV', name, value);
}

// Has the runner hide `value` from here on: each line for itself, since logs are made of lines,
// and the whole, whose encoded forms (base64, URL, JSON) the runner finds by itself. False if it
// is too short to be hidden.
export function mask(value) {
  const lines = value.split(/[\r\n]+/u).map((line) => line.trim());
  const parts = [...new Set([...lines, value])].filter((part) => part.length >= MASKED_CHARS_MIN);
  for (const part of parts) command('add-mask', part);
  return parts.length > 0 || value.trim() === '';
}

export function say(message) {
  // In its old form a command may stand anywhere in a line.
  process.stdout.write(`dayfly: ${printable(message).replaceAll('##[', '# #[')}\n`);
}

export function notice(message) {
  command('notice', `dayfly: ${printable(message)}`);
}

export function warn(message) {
  command('warning', `dayfly: ${printable(message)}`);
}

export function fail(message) {
  command('error', `dayfly: ${printable(message)}`);
  process.exitCode = 1;
}

// One line, without what steers a terminal: names and reasons come from elsewhere.
export function printable(text) {
  return text.replace(/[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '\ufffd');
}

function command(name, data) {
  const escaped = data.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
  process.stdout.write(`::${name}::${escaped}\n`);
}

function append(file, name, value) {
  const path = process.env[file];
  if (!path) throw new Fault(`${file} is not set: this runs only as a step of GitHub Actions`);
  let delimiter;
  do delimiter = `dayfly_${randomBytes(16).toString('hex')}`; while (value.includes(delimiter));
  appendFileSync(path, `${name}<<${delimiter}\n${value}\n${delimiter}\n`, { mode: 0o600 });
}
