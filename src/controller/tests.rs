//! The controller as a whole: stories over synthetic traffic in virtual time.

mod announce;
mod playbooks;
mod random;
mod reflexes;
mod scenarios;
mod statistics;
mod stories;
mod world;
