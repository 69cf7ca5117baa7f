//! Suites against real servers and real clients, and the benchmarks.
