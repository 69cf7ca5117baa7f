"""A service that keeps one connection, and opens another when that was ended.

The user's name comes from a file of services (PGSERVICEFILE), the password from a password file
(PGPASSFILE): libpq reads both at each connection. Runs until it has been so many different users, and
prints them. Usage: pg-service.py SERVICE USERS
"""

import sys
import time

import psycopg

SERVICE, USERS = sys.argv[1], int(sys.argv[2])
PATIENCE = 120


def connect():
    # The two files are not replaced at one stroke: who reads in between tries again.
    for attempts_left in (2, 1, 0):
        try:
            return psycopg.connect(f"service={SERVICE}", autocommit=True)
        except psycopg.OperationalError:
            if attempts_left == 0:
                raise
            time.sleep(0.2)


users, ended = [], 0
begun = time.monotonic()
connection = connect()
while len(users) < USERS and time.monotonic() - begun < PATIENCE:
    try:
        (user,) = connection.execute("select current_user from app.notes").fetchone()
    except psycopg.OperationalError:
        ended += 1
        connection = connect()
        continue
    if user not in users:
        users.append(user)
    time.sleep(0.1)
connection.close()
print("\n".join(users))
print(f"connections that were ended: {ended}")
