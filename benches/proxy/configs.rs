//! The peers' configurations: one worker (but for the peer with two), half of the requests to each upstream, connections kept.
//!
//! nginx and HAProxy log nothing and measure nothing. cutover runs as it would in production: with
//! metering, rows and aggregates in SQLite, and its controller.

use std::net::SocketAddr;
use std::path::Path;

/// The name of the configuration in a peer's folder.
pub(crate) const FILE: &str = "config";

/// The environment variable that holds the canary's credential.
pub(crate) const KEY_NAME: &str = "CUTOVER_BENCH_KEY";

/// Where a peer listens, forwards to and keeps its files.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// For the clients.
    pub(crate) listen: SocketAddr,
    /// For operators; cutover alone has that.
    pub(crate) admin: SocketAddr,
    /// Where the halves go.
    pub(crate) upstreams: [SocketAddr; 2],
    /// A folder of its own.
    pub(crate) folder: &'a Path,
}

/// How cutover runs where it does not run as it is shipped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Threads that carry traffic.
    pub(crate) workers: u32,
    /// Which requests get a row, as the configuration names it.
    pub(crate) rows: &'static str,
}

/// nginx splits each request by `split_clients`, and closes no connection in between.
pub(crate) fn nginx(places: &Places<'_>) -> String {
    let [first, second] = places.upstreams;
    let folder = places.folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr error;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n{temporary}    access_log off;\n    keepalive_requests 1000000000;\n\
         \x20   upstream first {{ server {first}; keepalive 512; keepalive_requests 1000000000; }}\n\
         \x20   upstream second {{ server {second}; keepalive 512; keepalive_requests 1000000000; }}\n\
         \x20   split_clients \"$connection-$connection_requests\" $side {{ 50% first; * second; }}\n\
         \x20   server {{\n        listen {};\n        location / {{\n\
         \x20           proxy_pass http://$side;\n            proxy_http_version 1.1;\n\
         \x20           proxy_set_header Connection \"\";\n            proxy_buffering off;\n\
         \x20       }}\n    }}\n}}\n",
        places.listen
    )
}

/// HAProxy takes turns, and passes small pieces on without delay.
pub(crate) fn haproxy(places: &Places<'_>) -> String {
    let [first, second] = places.upstreams;
    format!(
        "global\n    nbthread 1\n    maxconn 9800\n\
         defaults\n    mode http\n    option http-no-delay\n    option http-keep-alive\n\
         \x20   timeout connect 2s\n    timeout client 60s\n    timeout server 60s\n\
         frontend clients\n    bind {}\n    default_backend both\n\
         backend both\n    balance roundrobin\n    server first {first}\n    server second {second}\n",
        places.listen
    )
}

/// cutover with everything on, or as `manner` says.
pub(crate) fn cutover(places: &Places<'_>, manner: Manner) -> String {
    let [first, second] = places.upstreams;
    format!(
        "[proxy]\nlisten = \"{}\"\nworkers = {}\n\n[admin]\nlisten = \"{}\"\n\n\
         [store]\nurl = \"sqlite:{}/cutover.db\"\nrequests = \"{}\"\n\n\
         [arms.legacy]\nbase-url = \"http://{first}/v1\"\n\n\
         [arms.canary]\nbase-url = \"http://{second}/v1\"\napi-key = \"env:{KEY_NAME}\"\n\n\
         [[rollout]]\nname = \"bench\"\nwarm-up = 0\n\
         stages = [{{ weight = \"50%\", dwell = \"1h\" }}, {{ weight = \"100%\", dwell = \"1h\" }}]\n",
        places.listen,
        manner.workers,
        places.admin,
        places.folder.display(),
        manner.rows
    )
}
