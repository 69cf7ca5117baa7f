//! The suites against real servers and real clients, in one binary.

#[cfg(test)]
mod abandon;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fsck;
#[cfg(test)]
mod heartbeats;
#[cfg(test)]
mod http_api;
#[cfg(test)]
mod jwt;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod main_job;
#[cfg(test)]
mod mysql;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod sweeps;
