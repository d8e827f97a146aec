//! Integration tests: one binary, one module per subject.

#[cfg(test)]
mod client;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod tidy;
