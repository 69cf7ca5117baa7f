# Shell functions that the scripts here share. Sourced, not run.

# The newest PostgreSQL that is installed.
postgres_bin() {
    ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1
}

# PostgreSQL refuses to run as root, so root becomes the user postgres for it.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
    else
        "$@"
    fi
}

# postgres_start DIR: a throwaway server in DIR, reached by the socket DIR/socket.
postgres_start() {
    local directory=$1 bin
    bin=$(postgres_bin)
    [ -n "$bin" ] || { echo 'PostgreSQL is not installed (Debian: postgresql)' >&2; return 1; }
    mkdir -p "$directory/socket"
    [ "$(id -u)" = 0 ] && chown postgres:postgres "$directory" "$directory/socket"
    chmod 755 "$directory"
    as_postgres "$bin/initdb" -D "$directory/data" -A trust -U postgres -E UTF8 \
        --locale=C.UTF-8 --no-sync --no-instructions >/dev/null
    printf "listen_addresses=''\nunix_socket_directories='%s'\nfsync=off\n" "$directory/socket" \
        >>"$directory/data/postgresql.conf"
    as_postgres "$bin/pg_ctl" -D "$directory/data" -w -s -l "$directory/data/log" start
}

postgres_stop() {
    local directory=$1
    [ -f "$directory/data/postmaster.pid" ] || return 0
    as_postgres "$(postgres_bin)/pg_ctl" -D "$directory/data" -m immediate -s stop
}
