//! The order of things: which peer is asked what, round by round, and what went wrong.

use std::future::Future;
use std::path::Path;

use crate::figures::{Figure, Figures};
use crate::measure;
use crate::options::Options;
use crate::pacer::Pace;
use crate::peers::{self, PATH, Peer, Running};
use crate::system_calls;
use crate::table::Rounds;
use crate::upstream::Upstreams;

/// Everything that a run has and has found so far.
pub(crate) struct Bench<'a> {
    options: &'a Options,
    folder: &'a Path,
    upstreams: &'a Upstreams,
    /// What was measured.
    pub(crate) rounds: Rounds,
    /// What a reader must know beside it.
    pub(crate) remarks: Vec<String>,
    /// The first thing that cutover failed at: the run has failed then.
    pub(crate) fault: Option<String>,
}

impl<'a> Bench<'a> {
    /// Nothing measured yet.
    pub(crate) fn new(options: &'a Options, folder: &'a Path, upstreams: &'a Upstreams) -> Self {
        Self {
            options,
            folder,
            upstreams,
            rounds: Rounds::new(),
            remarks: Vec::new(),
            fault: None,
        }
    }

    /// One round: without a proxy, then every peer, then cutover in other manners.
    pub(crate) async fn round(&mut self, round: usize) {
        let direct = self.direct().await;
        self.rounds.entry(Peer::Direct).or_default().push(direct);
        for peer in Peer::RIVALS {
            if !self.options.wants(peer) {
                continue;
            }
            let mut figures = Figures::new();
            if let Some(running) = self.start(peer, round).await {
                self.rival(peer, &running, round, &mut figures).await;
            }
            if self.options.wants_held(round) && !figures.is_empty() {
                self.held(peer, round, &mut figures).await;
            }
            if peer == Peer::Cutover && self.options.wants_load("manners") && !figures.is_empty() {
                self.manners(round, &mut figures).await;
            }
            self.rounds.entry(peer).or_default().push(figures);
        }
    }

    /// The times that pass without a proxy.
    async fn direct(&mut self) -> Figures {
        let [address, _] = self.upstreams.addresses;
        let (time, upstreams) = (self.options.measure, self.upstreams);
        let mut figures = Figures::new();
        let latency = measure::latency(address, PATH, None, time);
        self.keep(Peer::Direct, "latency", latency, &mut figures)
            .await;
        let ttft = measure::ttft(address, PATH, None, upstreams, time);
        self.keep(Peer::Direct, "ttft", ttft, &mut figures).await;
        figures
    }

    async fn start(&mut self, peer: Peer, round: usize) -> Option<Running> {
        let (name, rounds) = (peer.name(), self.options.rounds);
        eprintln!("round {} of {rounds}: {name}", round + 1);
        match peers::start(peer, self.folder, self.upstreams.addresses).await {
            Ok(running) => Some(running),
            Err(why) => {
                self.failed(peer, &why);
                None
            }
        }
    }

    /// Everything that is asked of every peer.
    async fn rival(&mut self, peer: Peer, running: &Running, round: usize, figures: &mut Figures) {
        let (time, upstreams, pid) = (self.options.measure, self.upstreams, Some(running.pid()));
        let (address, path) = (running.address, running.path);
        figures.extend(measure::at_rest(running, peer.program().as_deref()));
        let latency = measure::latency(address, path, pid, time);
        self.keep(peer, "latency", latency, figures).await;
        let ttft = measure::ttft(address, path, pid, upstreams, time);
        self.keep(peer, "ttft", ttft, figures).await;
        let saturation = measure::saturation(running, upstreams, time);
        self.keep(peer, "requests", saturation, figures).await;
        self.who_was_the_limit(peer, figures);
        for (pace, figure) in [
            (Pace::Spread, Figure::SpreadUs),
            (Pace::Bursts, Figure::BurstUs),
        ] {
            let events = async {
                let us = measure::events(running, upstreams, time, pace).await?;
                Ok(Figures::from([(figure, us)]))
            };
            self.keep(peer, "chunks", events, figures).await;
        }
        if round == 0 && self.options.wants_load("requests") {
            match system_calls::per_request(running, self.folder).await {
                Ok(calls) => drop(figures.insert(Figure::SystemCalls, calls)),
                Err(why) => self.remark(format!("no system calls: {why}")),
            }
        }
        if peer == Peer::Cutover {
            let unrecorded = async {
                let lost = measure::unrecorded(running.admin).await?;
                Ok(Figures::from([(Figure::Unrecorded, lost)]))
            };
            self.keep(peer, "requests", unrecorded, figures).await;
        }
    }

    /// Many streams at once, in a peer that has done nothing else: memory that an earlier load left
    /// behind would hide what they take.
    async fn held(&mut self, peer: Peer, round: usize, figures: &mut Figures) {
        let Some(running) = self.start(peer, round).await else {
            return;
        };
        let (streams, time) = (self.options.streams, self.options.measure);
        let held = measure::held(&running, self.upstreams, streams, time);
        self.keep(peer, "held", held, figures).await;
    }

    /// A peer that had time left while the bench had none could have done more.
    fn who_was_the_limit(&mut self, peer: Peer, figures: &Figures) {
        let busy = |figure| figures.get(&figure).copied().unwrap_or(100.0);
        if busy(Figure::Busy) < 90.0 && busy(Figure::BenchBusy) > 95.0 {
            let name = peer.name();
            self.remark(format!("{name}: the bench was the limit of its requests/s"));
        }
    }

    /// What cutover costs where it does not run as it is shipped; goes into its own round.
    async fn manners(&mut self, round: usize, figures: &mut Figures) {
        let (time, upstreams) = (self.options.measure, self.upstreams);
        for peer in [Peer::Unrecorded, Peer::Unmetered, Peer::TwoWorkers] {
            let Some(running) = self.start(peer, round).await else {
                continue;
            };
            let mut own = Figures::new();
            let saturation = measure::saturation(&running, upstreams, time);
            self.keep(peer, "manners", saturation, &mut own).await;
            let (rate, us) = (own.get(&Figure::RequestsPerS), own.get(&Figure::RequestUs));
            let (Some(rate), Some(us)) = (rate, us) else {
                continue;
            };
            let with_all = figures.get(&Figure::RequestUs).copied();
            match peer {
                Peer::Unrecorded => {
                    figures.insert(Figure::UnrecordedUs, *us);
                    figures.extend(with_all.map(|all| (Figure::RecordingRatio, all / us)));
                }
                Peer::TwoWorkers => {
                    figures.insert(Figure::TwoRequestsPerS, *rate);
                    figures.insert(Figure::TwoRequestUs, *us);
                    figures.extend(with_all.map(|all| (Figure::TwoRatio, us / all)));
                }
                _ => {
                    figures.insert(Figure::UnmeteredUs, *us);
                    let spread = async {
                        let us = measure::events(&running, upstreams, time, Pace::Spread).await?;
                        Ok(Figures::from([(Figure::UnmeteredSpreadUs, us)]))
                    };
                    self.keep(peer, "manners", spread, figures).await;
                }
            }
        }
    }

    /// Waits for a measurement, if its load is wanted, and keeps its figures or says why there are
    /// none.
    async fn keep(
        &mut self,
        peer: Peer,
        load: &str,
        measured: impl Future<Output = Result<Figures, String>>,
        figures: &mut Figures,
    ) {
        if !self.options.wants_load(load) {
            return;
        }
        match measured.await {
            Ok(some) => figures.extend(some),
            Err(why) => {
                self.upstreams.settle().await;
                self.failed(peer, &why);
            }
        }
    }

    fn failed(&mut self, peer: Peer, why: &str) {
        let why = format!("{}: {why}", peer.name());
        eprintln!("  {why}");
        if peer.is_cutover() {
            self.fault.get_or_insert_with(|| why.clone());
        }
        self.remark(why);
    }

    fn remark(&mut self, remark: String) {
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }
}
