#!/usr/bin/python3
"""A system of keys in a directory, one file a key, and the faults that a plugin can have.

usage: plugin.py DIRECTORY [FAULT [CALL]]     FAULT at CALL only, or at every call
"""
import datetime, fcntl, json, os, secrets, signal, subprocess, sys, time

directory, fault, only = (sys.argv[1:] + [None, None])[:3]


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def parse(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class Refused(Exception):
    def __init__(self, kind, message=""):
        self.kind, self.message = kind, message


def path(handle):
    return os.path.join(directory, handle)


def mint(ask):
    if ask["password"] != "plugin-password":
        raise Refused("denied", "wrong password " + ask["password"])
    if now() > parse(ask["mint_deadline"]):
        raise Refused("unavailable", "the deadline has passed")
    if os.path.exists(path(ask["handle"])):
        raise Refused("conflict", "the name is taken")
    secret = secrets.token_hex(16)
    with open(path(ask["handle"]), "w") as file:
        json.dump({"secret": secret, "expires_at": ask["expires_at"], "template": ask["template"]}, file)
    return {"fields": {"name": ask["handle"]}, "secrets": {"key": secret}, "environment": {"LEGACY_KEY": "key"}}


def renew(ask):
    try:
        key = json.load(open(path(ask["handle"])))
    except FileNotFoundError:
        raise Refused("not_found")
    key["expires_at"] = ask["until"]
    with open(path(ask["handle"]), "w") as file:
        json.dump(key, file)
    return {}


def revoke(ask):
    answer = {"gone": [], "failed": []}
    for one in ask["credentials"]:
        if os.path.exists(path(one["handle"] + ".held")):
            answer["failed"].append({"handle": one["handle"], "error": {"kind": "dependent", "message": "it is held"}})
            continue
        try:
            os.remove(path(one["handle"]))
        except FileNotFoundError:
            pass
        answer["gone"].append(one["handle"])
    return answer


def verify(ask):
    names = [one["handle"] for one in ask["credentials"]]
    live = [name for name in names if os.path.exists(path(name))]
    return {"live": live, "gone": [name for name in names if name not in live]}


def list_(ask):
    names = sorted(name for name in os.listdir(directory) if name.startswith(ask["prefix"]) and "." not in name)
    names = [name for name in names if not ask["after"] or name > ask["after"]]
    page = names[: ask["limit"]]
    expiry = lambda name: json.load(open(path(name)))["expires_at"]
    return {"credentials": [{"handle": name, "expires_at": expiry(name)} for name in page], "more": len(names) > len(page)}


def marker(ask):
    try:
        return {"text": open(path("." + ask["name"])).read()}
    except FileNotFoundError:
        return {"text": None}


def mark(ask):
    with open(path("." + ask["name"]), "w") as file:
        file.write(ask["text"])
    return {}


def use(ask):
    try:
        key = json.load(open(path(ask["fields"]["name"])))
    except FileNotFoundError:
        return {"accepted": False}
    return {"accepted": key["secret"] == ask["fields"]["key"] and now() < parse(key["expires_at"])}


def clock(ask):
    return {"now": now().isoformat()}


calls = {"mint": mint, "renew": renew, "revoke": revoke, "verify": verify, "list": list_, "marker": marker, "mark": mark, "use": use, "clock": clock}

if fault == "deaf":
    sys.stdin.close()
    print('{"id":"0","result":{}}')
    sys.exit()
ask = json.load(sys.stdin)
if only and ask["call"] != only:
    fault = None
note = lambda name, text: open(os.path.join(directory, ".note-" + name), "w").write(text)
if fault == "environment":
    note("environment", json.dumps(dict(os.environ)))
if fault == "hang":
    time.sleep(600)
if fault == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("pid", str(os.getpid()))
    time.sleep(600)
if fault == "silent":
    sys.exit()
if fault == "flood":
    while True:
        os.write(1, b"x" * 65536)
if fault == "bomb":
    # Every process makes another, and all of them wait; bounded, since this is a test.
    note("pid", str(os.getpid()))
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(600)
    time.sleep(600)
answer = {"id": ask["id"]}
try:
    with open(os.path.join(directory, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer["result"] = calls[ask["call"]](ask)
except Refused as refused:
    answer["error"] = {"kind": refused.kind, "message": refused.message}
if fault == "dies-after":
    sys.stderr.write("it broke with " + ask.get("password", "") + " and " + json.dumps(answer))
    sys.exit(1)
if fault == "another":
    answer["id"] = "0" * 32
if fault == "noise":
    os.write(2, b"n" * 10_000_000)
text = json.dumps(answer)
if fault == "partial":
    text = text[: len(text) // 2]
if fault == "twice":
    text += text
if fault == "lies":
    text = json.dumps({"id": ask["id"], "result": {"gone": [one["handle"] for one in ask["credentials"]]}})
    for one in ask["credentials"]:
        open(path(one["handle"]), "w").write('{"secret": "", "expires_at": "2000-01-01T00:00:00Z"}')
if fault == "forgets":
    text = json.dumps({"id": ask["id"], "result": {}})
if fault == "orphan":
    child = subprocess.Popen(["/usr/bin/sleep", "600"])
    note("pid", str(child.pid))
print(text)
