//! The suites against real servers and real clients, in one binary.

#[cfg(test)]
mod abandon;
#[cfg(test)]
#[cfg(feature = "kube-apiserver")]
mod api_server;
#[cfg(test)]
mod aws_identity;
#[cfg(test)]
mod binding;
#[cfg(test)]
mod cancel;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod checking;
#[cfg(test)]
mod ci;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fsck;
#[cfg(test)]
mod heartbeats;
#[cfg(test)]
mod helpers;
#[cfg(test)]
mod http_api;
#[cfg(test)]
mod identities;
#[cfg(test)]
mod injector;
#[cfg(test)]
mod job_life;
#[cfg(test)]
mod jwt;
#[cfg(test)]
mod keycloak;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod login;
#[cfg(test)]
mod main_job;
#[cfg(test)]
mod mysql;
#[cfg(test)]
mod on_behalf;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod people;
#[cfg(test)]
mod platforms;
#[cfg(test)]
mod policy_change;
#[cfg(test)]
mod policy_lint;
#[cfg(test)]
mod poller;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod pty;
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
mod shared_signals;
#[cfg(test)]
mod spiffe;
#[cfg(test)]
mod sweeps;
#[cfg(test)]
mod webhooks;
