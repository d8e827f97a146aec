//! System calls per request, counted by strace.
//!
//! strace slows what it watches, so nothing else is measured meanwhile. Only the strace that was
//! started here is ended.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::sleep;

use crate::cpu::family;
use crate::open_loop::{self, Plan};
use crate::peers::Running;

const PLAN: Plan = Plan {
    rate: 500,
    connections: 16,
    time: Duration::from_millis(1_000),
    streams: None,
};
/// Time that strace takes to attach.
const ATTACH: Duration = Duration::from_millis(500);

/// Ends strace, which lets go of the peer, even if the load failed.
struct Strace(Child);

impl Strace {
    fn end(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        let pid = self.0.id().to_string();
        let asked = Command::new("kill").args(["-INT", &pid]).status();
        if !asked.is_ok_and(|status| status.success()) {
            drop(self.0.kill());
        }
        drop(self.0.wait());
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
    }
}

/// System calls per plain request at 500 requests/s, background work included.
///
/// # Errors
/// If strace is not there or may not watch, or the load failed.
pub(crate) async fn per_request(running: &Running, folder: &Path) -> Result<f64, String> {
    let counted = folder.join("strace");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "INT", "strace", "-f", "-c", "-o"])
        .arg(&counted);
    for pid in family(running.pid()) {
        command.args(["-p", &pid.to_string()]);
    }
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut strace = Strace(spawned.map_err(|e| format!("setpriv: {e}"))?);
    sleep(ATTACH).await;
    if !matches!(strace.0.try_wait(), Ok(None)) {
        return Err("strace is not installed or may not watch".to_owned());
    }
    let seen = open_loop::play(running.address, running.path, PLAN).await?;
    strace.end();
    let text = fs::read_to_string(&counted).map_err(|e| format!("strace: {e}"))?;
    let total = text.lines().find(|line| line.trim_end().ends_with("total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok());
    let calls = calls.ok_or("strace counted nothing")?;
    // Every connection asked once before the schedule began.
    let asked = seen.answers.get() + u64::from(PLAN.connections);
    Ok(calls / crate::number(asked))
}
