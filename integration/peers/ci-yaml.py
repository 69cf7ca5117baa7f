# The documents of a YAML file as JSON, on stdout. With inputs, the file is a GitLab component: they
# are held against its `spec`, as GitLab does, and put into what follows it.
# Usage: python3 ci-yaml.py FILE [INPUTS-AS-JSON]
import json
import re
import sys

import yaml


def filled(text: str, given: dict) -> str:
    spec, body = re.split(r"(?m)^---$", text, maxsplit=1)
    rules = yaml.safe_load(spec)["spec"]["inputs"]
    if unknown := set(given) - set(rules):
        sys.exit(f"unknown inputs: {sorted(unknown)}")
    values = {}
    for name, rule in rules.items():
        value = given.get(name, rule.get("default"))
        if value is None:
            sys.exit(f"the input {name} is required")
        if not re.search(rule.get("regex", ""), value):
            sys.exit(f"the input {name} does not match {rule['regex']}")
        values[name] = value
    return re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", lambda match: values[match.group(1)], body)


with open(sys.argv[1], encoding="utf-8") as file:
    content = file.read()
if len(sys.argv) > 2:
    content = filled(content, json.loads(sys.argv[2]))
json.dump(list(yaml.safe_load_all(content)), sys.stdout)
