//! The attack corpus on tokens and keys, by part.
//!
//! Every desk first accepts a good token, so that no refusal below passes for another reason
//! than the one it names.

pub(super) mod kit;

mod claims;
mod config;
mod fuzz;
mod header;
mod local;
mod presets;
mod signature;
mod wycheproof;
