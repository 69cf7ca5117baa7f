//! `quotas`: how many leases may live, and how fast they may be minted.
//!
//! Invariant: a quota is at least one; what may never be minted has no role.

use dayfly_lease::quota::{Measure, Quota};

use super::section::{Section, integer};

/// More than this is no quota, and would have to be counted.
const MOST: u32 = 100_000;

type Kinds<'a> = &'a [(&'static str, Measure)];

fn read(section: &Section<'_>, kinds: Kinds<'_>) -> Vec<Quota> {
    let quota = |&(key, measure): &(&'static str, Measure)| {
        section.optional(key, integer(1..=MOST)).map(|most| Quota { measure, most })
    };
    kinds.iter().filter_map(quota).collect()
}

/// Of `[[role]]`.
pub(super) fn of_role(section: &Section<'_>) -> Vec<Quota> {
    let kinds: Kinds<'_> = &[
        ("leases_per_principal", Measure::ShareLiving),
        ("leases", Measure::RoleLiving),
        ("mints_per_minute_per_principal", Measure::ShareMinted),
        ("mints_per_minute", Measure::RoleMinted),
    ];
    read(section, kinds)
}

/// Of `[[backend]]`.
pub(super) fn of_backend(section: &Section<'_>) -> Vec<Quota> {
    let kinds: Kinds<'_> =
        &[("leases", Measure::BackendLiving), ("mints_per_minute", Measure::BackendMinted)];
    read(section, kinds)
}

/// Of `[quotas]`.
pub(super) fn of_everybody(section: &Section<'_>) -> Vec<Quota> {
    read(section, &[("leases_per_principal", Measure::PrincipalLiving)])
}
