//! Integration tests: one binary, one module per subject.

#[cfg(test)]
mod breaker;
#[cfg(test)]
mod client;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod hardening;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod metering;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod rewrite;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tls;
