//! How many client connections and calls the process has open files for.
//!
//! Each connection may need one to an arm as well, and one of HTTP/2 many. A process without a free file can neither accept nor reach
//! an arm, so idle clients could cut off those that are being served.

use std::fs;

/// For the store, the log, the admin port, and whatever a library opens.
const KEPT_BACK: usize = 200;
/// Files of one client: its connection and the one to the arm.
const PER_CLIENT: usize = 2;
/// However few files there are, somebody is served.
const LEAST: usize = 16;

/// What there are files for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Affordable {
    /// Connections of clients.
    pub(super) connections: usize,
    /// Attempts that are under way; as many as connections at least.
    pub(super) calls: usize,
}

/// `wanted` connections, or as many as there are files for; says so in the log.
pub(super) fn affordable(wanted: usize) -> Affordable {
    // Where the system does not say, there is nothing to go by.
    let limits = fs::read_to_string("/proc/self/limits").ok();
    let Some(files) = limits.as_deref().and_then(soft_limit) else {
        return Affordable {
            connections: wanted,
            calls: usize::MAX,
        };
    };
    let most = clients_with(files);
    if wanted > most {
        tracing::warn!(
            files,
            max_connections = most,
            "the limit on open files allows fewer connections than max-connections; raise it (ulimit -n, \
             LimitNOFILE) to {}",
            wanted * PER_CLIENT + KEPT_BACK
        );
    }
    share_out(files, wanted)
}

fn share_out(files: usize, wanted: usize) -> Affordable {
    let connections = wanted.min(clients_with(files));
    let left = files.saturating_sub(KEPT_BACK + connections);
    Affordable {
        connections,
        calls: left.max(connections),
    }
}

fn clients_with(files: usize) -> usize {
    (files.saturating_sub(KEPT_BACK) / PER_CLIENT).max(LEAST)
}

/// The soft limit of "Max open files"; `None` if there is none.
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_files_for_the_arms_and_the_store() {
        for (files, clients) in [(20_200, 10_000), (1_024, 412), (200, 16), (0, 16)] {
            assert_eq!(clients_with(files), clients, "{files}");
        }
    }

    #[test]
    fn calls_have_the_files_that_clients_leave_and_one_for_each_client_at_least() {
        for (files, wanted, connections, calls) in [
            (65_536, 10_000, 10_000, 55_336),
            (20_200, 10_000, 10_000, 10_000),
            (1_024, 10_000, 412, 412),
            (1_024, 50, 50, 774),
            (100, 10_000, 16, 16),
        ] {
            let expected = Affordable { connections, calls };
            assert_eq!(share_out(files, wanted), expected, "{files} {wanted}");
        }
    }

    #[test]
    fn the_limit_is_read_as_the_kernel_writes_it() {
        let limits = |soft: &str| {
            let head = "Limit                     Soft Limit           Hard Limit           Units";
            format!(
                "{head}\nMax processes 1 2 processes\nMax open files            {soft} 1048576 files\n"
            )
        };
        assert_eq!(soft_limit(&limits("1024                ")), Some(1_024));
        assert_eq!(soft_limit(&limits("unlimited           ")), None);
        assert_eq!(soft_limit(""), None);
        if cfg!(target_os = "linux") {
            assert_ne!(affordable(usize::MAX / 4).connections, 0);
        }
    }
}
