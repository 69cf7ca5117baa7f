# Runs a program at a terminal of its own and plays who sits there; prints all that the terminal
# showed. A step is one of {"expect": TEXT}, which must be shown after what was expected before,
# {"send": KEYS}, {"size": [ROWS, COLUMNS]}, {"pause": SECONDS} and, as the last, {"hangup": true}: the
# terminal is gone.
# Exit code: the program's own, 128+N if signal N killed it, 99 if something was not shown in time.
# Usage: python3 terminal.py STEPS-AS-JSON PROGRAM [ARGUMENT...]
import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

PATIENCE = 30.0
shown = b""


def look(master: int, within: float) -> bool:
    """Takes what is shown within this time; false when nobody is at the terminal any more."""
    global shown
    if not select.select([master], [], [], max(within, 0))[0]:
        return True
    try:
        piece = os.read(master, 65536)
    except OSError:
        return False
    shown += piece
    return bool(piece)


def ends(code: int, process: int) -> None:
    sys.stdout.buffer.write(shown)
    sys.stdout.flush()
    if code == 99:
        os.kill(process, 9)
    sys.exit(code)


def play(steps: list, master: int, process: int) -> None:
    seen = 0
    for step in steps:
        if "expect" in step:
            text, until = step["expect"].encode(), time.monotonic() + PATIENCE
            while (found := shown.find(text, seen)) < 0:
                if time.monotonic() > until or not look(master, until - time.monotonic()):
                    sys.stderr.write(f"not shown: {text!r}\n")
                    ends(99, process)
            seen = found + len(text)
        elif "send" in step:
            os.write(master, step["send"].encode())
        elif "size" in step:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *step["size"], 0, 0))
        elif "hangup" in step:
            os.close(master)
            return
        else:
            until = time.monotonic() + step["pause"]
            while time.monotonic() < until:
                look(master, until - time.monotonic())


def main() -> None:
    steps, command = json.loads(sys.argv[1]), sys.argv[2:]
    process, master = pty.fork()
    if process == 0:
        os.execvp(command[0], command)
    play(steps, master, process)
    until = time.monotonic() + PATIENCE
    while "hangup" not in steps[-1] and look(master, until - time.monotonic()):
        if time.monotonic() > until:
            sys.stderr.write("the program does not end\n")
            ends(99, process)
    status = os.waitpid(process, 0)[1]
    ends(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status), process)


main()
