"""moto as a stand-in for STS and IAM that keeps to what Dayfly relies on at AWS.

Run as `account.py PORT DIRECTORY [OPTION…]`, with options of `moto_server`: an administrator's key
is in DIRECTORY/root, and for sessions it is DIRECTORY/ahead seconds later than the clock says.

moto 5.2.5 signs, and checks signatures and policies; what it does not do is added here:
- conditions of policies (it takes each statement that has one for a refusal): `StringLike`
  and `StringEquals` on `aws:userid`, and no other;
- session policies, which leave a session what both they and the role allow;
- the end of a session, and keys that are inactive;
- signatures of the body as it was sent, and not as moto would write it;
- the words of an explicit deny, and the shape of an error (`ErrorResponse/Error`);
- answers in JSON to who asks for them by `Accept`, as STS gives them;
- that nobody signs `AssumeRoleWithWebIdentity`. The token itself is not looked at.
Resources of policies are not judged: moto knows no request's. Requests are answered one at a
time, since moto's own tables are not made for threads.
"""

import fnmatch
import io
import json
import os
import sys
import threading
from datetime import timedelta

PORT, PLACE = sys.argv[1], sys.argv[2]
# Every request is signed and judged, the first one as well.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"
os.environ["MOTO_PORT"] = PORT

import moto.core.exceptions as exceptions
import moto.iam.access_control as control
import moto.sts.models as sts
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.responses import BaseResponse
from moto.core.utils import utcnow
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

ACCOUNT = "123456789012"
caller = threading.local()


def now():
    try:
        with open(f"{PLACE}/ahead") as file:
            ahead = float(file.read() or 0)
    except FileNotFoundError:
        ahead = 0
    return utcnow() + timedelta(seconds=ahead)


sts.utcnow = now

# --- the shape of an error

build = exceptions._RESTError.__init__


def shaped(self, *arguments, **named):
    build(self, *arguments, **named)
    self.description = self.description.replace("<Errors>", "").replace("</Errors>", "")


exceptions._RESTError.__init__ = shaped


class ExpiredToken(exceptions._RESTError):
    code = 403

    def __init__(self):
        super().__init__("ExpiredToken", "The security token included in the request is expired")


class Denied(exceptions._RESTError):
    code = 403

    def __init__(self, arn, action, why):
        super().__init__(
            "AccessDenied", f"User: {arn} is not authorized to perform: {action} {why}"
        )


# --- JSON

BaseResponse.request_json = property(
    lambda self: "application/json" in self.headers.get("Accept", "")
)

# --- conditions

judge = control.IAMPolicyStatement.is_action_permitted


def holds(condition):
    for operator, wanted in condition.items():
        for key, patterns in wanted.items():
            assert (operator, key) in [("StringLike", "aws:userid"), ("StringEquals", "aws:userid")]
            patterns = patterns if isinstance(patterns, list) else [patterns]
            if operator == "StringLike":
                met = any(fnmatch.fnmatchcase(caller.userid, pattern) for pattern in patterns)
            else:
                met = caller.userid in patterns
            if not met:
                return False
    return True


def judged(self, action, resource="*", principal=None, values=None):
    if principal is not None:
        # A trust policy.
        return judge(self, action, resource, principal, values)
    statement = dict(self._statement)
    if not holds(statement.pop("Condition", {})):
        return control.PermissionResult.NEUTRAL
    statement["Resource"] = "*"
    return judge(control.IAMPolicyStatement(statement), action, "*")


control.IAMPolicyStatement.is_action_permitted = judged

# --- who may what


def permitted(self, resource):
    key, action = self._access_key, self._action
    session = None
    if isinstance(key, control.AssumedRoleAccessKey):
        session = next(
            one
            for one in sts.sts_backends[key.account_id]["aws"].assumed_roles
            if one.access_key_id == key._access_key_id
        )
        if session.expiration <= now():
            raise ExpiredToken()
        caller.userid = session.user_id
    else:
        user = self.backend.get_user(key._owner_user_name)
        if any(
            one.access_key_id == key._access_key_id and one.status != "Active"
            for one in user.access_keys
        ):
            self._raise_invalid_access_key("InvalidId")
        caller.userid = user.id
    if action == "sts:GetCallerIdentity":
        return
    results = [
        control.IAMPolicy(policy).is_action_permitted(action, resource)
        for policy in key.collect_policies()
    ]
    if control.PermissionResult.DENIED in results:
        raise Denied(key.arn, action, "with an explicit deny in an identity-based policy")
    allowed = control.PermissionResult.PERMITTED in results
    if self._is_assuming_role_operation(resource):
        allowed = allowed and self._check_role_trust_relationship(resource)
    if not allowed:
        why = f"because no identity-based policy allows the {action} action"
        raise Denied(key.arn, action, why)
    if session is not None and session.policy:
        narrowed = control.IAMPolicy(session.policy).is_action_permitted(action, resource)
        if narrowed != control.PermissionResult.PERMITTED:
            raise Denied(key.arn, action, "because no session policy allows it")


control.IAMRequestBase.check_action_permitted = permitted

signed = control.IAMRequestBase._create_aws_request


def as_sent(self):
    # moto has parsed the form, and would write a blank as `+` where the client wrote `%20`.
    self._body = caller.body
    return signed(self)


control.IAMRequestBase._create_aws_request = as_sent

authorize = ActionAuthenticatorMixin._authenticate_and_authorize_action


def authorized(self, request, resource="*"):
    if self._get_action() != "AssumeRoleWithWebIdentity":
        authorize(self, request, resource)


ActionAuthenticatorMixin._authenticate_and_authorize_action = authorized

# --- one at a time

answer, turn = DomainDispatcherApplication.__call__, threading.Lock()


def answered(self, environ, respond):
    # Read before, so that a request that is slow to come holds up no other.
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with turn:
        caller.body = body
        return answer(self, environ, respond)


DomainDispatcherApplication.__call__ = answered

# --- the administrator

iam = iam_backends[ACCOUNT]["aws"]
iam.create_user("us-east-1", "root")
key = iam.create_access_key("root")
everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
iam.put_user_policy(
    "root", "all", json.dumps({"Version": "2012-10-17", "Statement": [everything]})
)
with open(f"{PLACE}/root.new", "w") as file:
    file.write(f"{key.access_key_id} {key.secret_access_key}")
os.rename(f"{PLACE}/root.new", f"{PLACE}/root")

main(["-H", "127.0.0.1", "-p", PORT, *sys.argv[3:]])
