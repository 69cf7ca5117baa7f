//! Fills a store with leases that nobody minted, by copies of one that somebody did.
//!
//! Invariant: each row is what a mint and a death leave behind, by the schema's own checks,
//! and nothing of it is due within weeks.

/// How a database says what SQL does not say alike everywhere.
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

/// So many leases.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Verified dead.
    pub(crate) terminal: u64,
    /// Active, until weeks from now.
    pub(crate) active: u64,
}

const LEASES_PER_TASK: u64 = 10;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A stretch of leases of one state.
struct Stretch {
    first: u64,
    last: u64,
    /// Microseconds since 1970 at which the first was issued, and between two of them.
    issued: i64,
    apart: i64,
    active: bool,
}

/// The statements, in order. The store must hold one delivered lease of an open task.
pub(crate) fn statements(dialect: &Dialect, size: Size, now: i64) -> Vec<String> {
    let terminal = Stretch {
        first: 1,
        last: size.terminal,
        issued: now - 30 * DAY,
        apart: 20 * DAY / size.terminal.max(1).cast_signed(),
        active: false,
    };
    let active = Stretch {
        first: size.terminal + 1,
        last: size.terminal + size.active,
        issued: now - 3_600 * SECOND,
        apart: 1_800 * SECOND / size.active.max(1).cast_signed(),
        active: true,
    };
    let stretches = [terminal, active];
    let mut all: Vec<String> = stretches
        .iter()
        .flat_map(|stretch| [dialect.tasks(stretch), dialect.leases(stretch)])
        .collect();
    all.push(dialect.keys(&stretches[1]));
    all
}

impl Dialect {
    /// The numbers from `first` to `last`.
    fn series(first: u64, last: u64) -> String {
        format!(
            "(WITH RECURSIVE s(n) AS (SELECT CAST({first} AS bigint) UNION ALL
             SELECT n + 1 FROM s WHERE n < {last}) SELECT n FROM s) AS s"
        )
    }

    /// A time-ordered id of a kind, from microseconds and a number.
    fn id(&self, kind: u8, micros: &str, number: &str) -> String {
        match self {
            Self::Postgres => format!(
                "CAST(lpad(to_hex(({micros}) / 1000), 12, '0') || '700{kind}8000' ||
                 lpad(to_hex({number}), 12, '0') AS uuid)"
            ),
            Self::Sqlite => format!(
                "unhex(printf('%012x', ({micros}) / 1000) || '700{kind}8000' ||
                 printf('%012x', {number}))"
            ),
        }
    }

    /// 32 bytes that are as good as a hash: nobody has what they would be the hash of.
    fn hash(&self, number: &str) -> String {
        match self {
            Self::Postgres => format!("sha256(CAST(CAST({number} AS text) AS bytea))"),
            // Scattered like a hash, and unlike any other number's.
            Self::Sqlite => format!(
                "unhex(printf('%08x', (({number}) * 2654435761) % 4294967296) ||
                 printf('%056x', {number}))"
            ),
        }
    }

    fn time(&self, micros: &str) -> String {
        match self {
            Self::Postgres => {
                format!("to_timestamp(({micros}) / CAST(1000000 AS double precision))")
            }
            Self::Sqlite => format!("({micros})"),
        }
    }

    fn tasks(&self, stretch: &Stretch) -> String {
        let task = |n: &str| stretch.task(self, n);
        let opened = stretch.issued_at(&format!("n * {LEASES_PER_TASK}"));
        let (ended, closed, expires) = if stretch.active {
            ("NULL", "NULL".to_owned(), format!("{opened} + {}", 90 * DAY))
        } else {
            ("'completed'", self.time(&format!("{opened} + {DAY}")), format!("{opened} + {DAY}"))
        };
        let (first, last) = (stretch.first / LEASES_PER_TASK, stretch.last / LEASES_PER_TASK);
        format!(
            "INSERT INTO tasks (id, principal, issuer, identity, purpose, token_hash, opened_at,
                expires_at, ended, closed_at)
             SELECT {id}, t.principal, t.issuer, t.identity, t.purpose, {hash}, {opened}, {expires},
                {ended}, {closed}
             FROM {series}, (SELECT * FROM tasks LIMIT 1) AS t",
            id = task("n"),
            // The active ones' numbers go on where the terminal ones' end, but for one task.
            hash = self.hash(&format!("n * 2 + {}", u8::from(stretch.active))),
            opened = self.time(&opened),
            expires = self.time(&expires),
            series = Self::series(first, last),
        )
    }

    fn leases(&self, stretch: &Stretch) -> String {
        let issued = stretch.issued_at("n");
        let expires = if stretch.active {
            format!("{issued} + {} + n * {SECOND}", 30 * DAY)
        } else {
            format!("{issued} + {}", 300 * SECOND)
        };
        let after = |seconds: i64| self.time(&format!("{issued} + {}", seconds * SECOND));
        let (columns, values) = if stretch.active {
            ("due_at", self.time(&expires))
        } else {
            let died = after(60);
            ("cause, revoking_at, revoked_at", format!("'task_completed', {died}, {died}"))
        };
        format!(
            "INSERT INTO leases (id, task, principal, issuer, role, backend, handle,
                decision_chain, decision_seq, epoch, state, issued_at, expires_at, max_expires_at,
                mint_deadline, activated_at, delivered_at, attempts, renewable, belts, plan,
                {columns})
             SELECT {id}, {task}, t.principal, t.issuer, t.role, t.backend, {handle},
                t.decision_chain, t.decision_seq, t.epoch, '{state}', {at}, {end}, {end},
                {deadline}, {active}, {active}, 0, t.renewable, t.belts, t.plan, {values}
             FROM {series}, (SELECT * FROM leases LIMIT 1) AS t",
            id = self.id(1, &issued, "n"),
            task = stretch.task(self, &format!("n / {LEASES_PER_TASK}")),
            handle = HANDLE,
            state = if stretch.active { "active" } else { "revoked" },
            at = self.time(&issued),
            end = self.time(&expires),
            deadline = after(15),
            active = after(1),
            series = Self::series(stretch.first, stretch.last),
        )
    }

    /// The keys that stand behind the active leases.
    fn keys(&self, stretch: &Stretch) -> String {
        let scopes = match self {
            Self::Postgres => "CAST('{greet}' AS text[])",
            Self::Sqlite => "'greet'",
        };
        format!(
            "INSERT INTO api_keys (handle, hash, principal, lease, scopes, expires_at)
             SELECT {HANDLE}, {hash}, t.principal, 'lse_' || CAST(n AS text), {scopes}, {at}
             FROM {series}, (SELECT * FROM leases LIMIT 1) AS t",
            hash = self.hash("n"),
            at = self.time(&format!("{} + {} + n * {SECOND}", stretch.issued_at("n"), 30 * DAY)),
            series = Self::series(stretch.first, stretch.last),
        )
    }
}

/// Under the prefix of the suites' API-key backend.
const HANDLE: &str = "'k_figures' || CAST(n AS text)";

impl Stretch {
    fn issued_at(&self, number: &str) -> String {
        format!("({} + (({number}) - {}) * {})", self.issued, self.first, self.apart)
    }

    /// The id of the task with a number.
    fn task(&self, dialect: &Dialect, number: &str) -> String {
        let opened = self.issued_at(&format!("({number}) * {LEASES_PER_TASK}"));
        dialect.id(2 + u8::from(self.active), &opened, number)
    }
}
