//! How leases die when many are due, when one backend hangs, and from day to day.
//!
//! Invariant: that a lease is dead is what the store and the server say themselves, and how
//! late it died is by the store's clock: `revoked_at` less `expires_at`.

mod drain;
mod ground;
mod steady;
mod traffic;

use crate::report::Report;

const DEATH_MS_MAX: f64 = 250.0;
const MINT_MS_MAX: f64 = 500.0;

pub(crate) async fn measure(report: &mut Report, crowd: u32) -> anyhow::Result<()> {
    drain::measure(report, drain::Due::AtOnce, crowd).await?;
    drain::measure(report, drain::Due::OverAnHour, crowd).await?;
    steady::measure(report).await?;
    steady::beside_one_that_hangs(report).await
}
