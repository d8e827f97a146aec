//! Integration tests: one binary, one module per subject.

#[cfg(test)]
mod breaker;
#[cfg(test)]
mod client;
#[cfg(test)]
mod compressed;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod fault_matrix;
#[cfg(test)]
mod hardening;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod headroom;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod include_usage;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod metering;
#[cfg(test)]
mod mixed_load;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod pinning;
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
