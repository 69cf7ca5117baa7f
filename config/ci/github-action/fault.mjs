// What went wrong, in a sentence for whoever reads the log of the job.

// A failure that is told as it is, without a stack.
// `temporary`: the same call may succeed later. `afterMs`: the pause that the broker asked for.
// `status`: the HTTP status, where there was an answer.
export class Fault extends Error {
  constructor(message, { temporary = false, afterMs = 0, status = 0 } = {}) {
    super(message);
    this.name = 'Fault';
    this.temporary = temporary;
    this.afterMs = afterMs;
    this.status = status;
  }
}

// What is not a Fault is a mistake of this action's own. Only its kind and place are told, since
// its message could repeat a value.
export function describe(error) {
  if (error instanceof Fault) return error.message;
  const place = /\/(\w+\.mjs:\d+)/u.exec(error?.stack ?? '')?.[1] ?? 'somewhere';
  return `the action itself failed (${error?.code ?? error?.name ?? 'unknown'} at ${place})`;
}
