//! The controller as a whole: stories over synthetic traffic in virtual time.

mod random;
mod reflexes;
mod statistics;
mod stories;
mod world;
