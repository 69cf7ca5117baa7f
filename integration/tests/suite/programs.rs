//! Programs that nobody has changed for Dayfly, at real servers. With what they were given, a login
//! is tried when they have ended.

mod agent;
mod aws;
mod nginx;
mod pipeline;
mod services;
