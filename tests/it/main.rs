//! Integration tests: one binary, one module per subject.

#[cfg(test)]
mod client;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod tidy;
