"""Credentials of a session, from the stand-in for STS and IAM that listens at PORT.

Run as `aws-session.py PORT DIRECTORY ROLE SESSION`: the administrator, whose key is in
DIRECTORY/root, makes the role if it is not there, and assumes it. Printed as JSON: `id`, `secret`,
`token` and the role's `unique_id`.
"""

import json
import sys

import boto3

PORT, PLACE, ROLE, SESSION = sys.argv[1:]
with open(f"{PLACE}/root") as file:
    key, secret = file.read().split()


def client(service):
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{PORT}",
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )


iam = client("iam")
trust = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::123456789012:user/root"},
            "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"],
        }
    ],
}
try:
    role = iam.get_role(RoleName=ROLE)["Role"]
except iam.exceptions.NoSuchEntityException:
    role = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
session = client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName=SESSION)["Credentials"]
json.dump(
    {
        "id": session["AccessKeyId"],
        "secret": session["SecretAccessKey"],
        "token": session["SessionToken"],
        "unique_id": role["RoleId"],
    },
    sys.stdout,
)
