//! Rules that span tables, asked after every table was read.
//!
//! Only looks and notes; changes nothing.

use std::net::SocketAddr;

use super::super::raw::{Place, Reader, Section, Wrong};
use super::super::{Config, Credential, RolloutConfig};
use crate::arm::Arm;

/// Places of the values that the rules speak about.
pub(super) struct Places {
    pub(super) proxy_listen: Place,
    pub(super) admin_listen: Place,
    pub(super) admin_token: Option<Place>,
    pub(super) has_clients: bool,
    pub(super) replay_body: Place,
    pub(super) canary_url: Place,
    pub(super) canary_key: Place,
    pub(super) rollouts: Vec<Place>,
}

impl Places {
    pub(super) fn of(root: &Section<'_>, rollouts: Vec<Place>) -> Self {
        let at = |path: [&str; 2]| root.find(&path);
        let value = |path: [&str; 2]| at(path).unwrap_or_else(|| root.place_of(path[0]));
        let canary = |key: &str| {
            root.find(&["arms", "canary", key])
                .unwrap_or_else(|| root.place_of("arms"))
        };
        Self {
            proxy_listen: value(["proxy", "listen"]),
            admin_listen: value(["admin", "listen"]),
            admin_token: at(["admin", "token"]),
            has_clients: at(["proxy", "clients"]).is_some(),
            replay_body: at(["proxy", "replay-body"])
                .unwrap_or_else(|| value(["proxy", "max-body"])),
            canary_url: canary("base-url"),
            canary_key: canary("api-key"),
            rollouts,
        }
    }
}

pub(super) fn check(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    listeners(reader, config, places);
    open_relay(reader, config, places);
    arms(reader, config, places);
    rollouts(reader, &config.rollouts, &places.rollouts);
    let proxy = &config.proxy;
    if proxy.replay_body_bytes > proxy.max_body_bytes {
        let wrong = Wrong::new(
            "replay-body is larger than max-body",
            "lower replay-body or raise max-body",
        );
        reader.fault(&places.replay_body, wrong);
    }
}

fn listeners(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let (proxy, admin) = (config.proxy.listen, config.admin.listen);
    if collide(proxy, admin) {
        // At whichever of the two is written; the admin's, if both are.
        let place = if places.admin_listen.path == "admin.listen" {
            &places.admin_listen
        } else {
            &places.proxy_listen
        };
        let wrong = Wrong::new(
            format!("proxy.listen ({proxy}) and admin.listen ({admin}) are the same port"),
            "give the admin API a port of its own",
        );
        reader.fault(place, wrong);
    }
    // A token that is written but wrong has its own fault.
    let has_token = places.admin_token.is_some();
    if !admin.ip().is_loopback() && !has_token {
        let wrong = Wrong::new(
            format!("{admin} can be reached from other machines and asks for no token"),
            "add token = \"env:CUTOVER_ADMIN_TOKEN\" under [admin], or listen on 127.0.0.1",
        );
        reader.fault(&places.admin_listen, wrong);
    }
}

/// True if the kernel would refuse the second of two listeners.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

fn open_relay(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let proxy = &config.proxy;
    let injecting = Arm::BOTH
        .into_iter()
        .find(|arm| matches!(config.arms.get(*arm).credential, Credential::Key(_)));
    // Clients that are written but wrong have faults of their own.
    let is_open = !proxy.listen.ip().is_loopback() && !places.has_clients;
    let Some(arm) = injecting.filter(|_| is_open) else {
        return;
    };
    if proxy.danger_open_relay {
        reader.warn(
            &places.proxy_listen,
            "everybody who can reach the listener uses your provider keys",
            "let only your own network reach it",
        );
    } else {
        let wrong = Wrong::new(
            format!(
                "an open relay: everybody who can reach {} would use the key of arms.{arm}",
                proxy.listen
            ),
            "give each client a key of its own with `cutover client add NAME`, or listen on 127.0.0.1, or pass \
             the clients' own keys on (api-key = \"client\"), or add danger-open-relay = true under [proxy] \
             if only your own network can reach it",
        );
        reader.fault(&places.proxy_listen, wrong);
    }
}

fn arms(reader: &mut Reader<'_>, config: &Config, places: &Places) {
    let (legacy, canary) = (&config.arms.legacy, &config.arms.canary);
    // Missing URLs have their own faults, and would look alike here.
    if reader.faults.is_empty() && legacy.base_url.leads_where(&canary.base_url) {
        reader.warn(
            &places.canary_url,
            "both arms have the same base-url: nothing would move",
            "name the new provider here, unless this is a trial",
        );
    }
    if let (Credential::Key(one), Credential::Key(other)) = (&legacy.credential, &canary.credential)
        && one == other
    {
        reader.warn(
            &places.canary_key,
            "both arms send the same key, so each provider sees the other's",
            "give the canary a key of its own",
        );
    }
}

fn rollouts(reader: &mut Reader<'_>, rollouts: &[RolloutConfig], places: &[Place]) {
    let mut seen: Vec<&str> = Vec::new();
    let mut catch_all: Option<&str> = None;
    for (rollout, place) in rollouts.iter().zip(places) {
        let name = rollout.name.as_str();
        if seen.contains(&name) {
            let wrong = Wrong::new(
                format!("a second rollout called \"{name}\""),
                "give each [[rollout]] a name of its own",
            );
            reader.fault(place, wrong);
        }
        if let Some(earlier) = catch_all {
            reader.warn(
                place,
                &format!("never reached: rollout \"{earlier}\" above covers all traffic"),
                "put the rollout without match last",
            );
        }
        if rollout.match_models.is_empty() && rollout.match_paths.is_empty() {
            catch_all = catch_all.or(Some(name));
        }
        seen.push(name);
    }
}
