//! The suites against real servers and real clients, in one binary.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod main_job;
#[cfg(test)]
mod refusals;
