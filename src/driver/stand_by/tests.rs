use serde_json::{Value, json};

use super::*;
use crate::config::parse::parse;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn config(canary: &str) -> Config {
    let text = format!(
        "[arms.legacy]\nbase-url = \"https://a.example.com\"\n[arms.canary]\nbase-url = \"https://{canary}\"\n\
         api-key = \"client\"\n[[rollout]]\nname = \"first\"\nmatch = {{ models = [\"x\"] }}\n[[rollout]]\nname = \"rest\"\n"
    );
    parse(&text, &|_| None).unwrap().config
}

/// A row of the rollout at this place of the configuration, at this weight.
fn row(config: &Config, place: usize, id: &str, weight: &str) -> RolloutRow {
    let rollout = &config.rollouts[place];
    let stored = Stored::begin(config, rollout, id, NOW).to_json();
    let mut stored: Value = serde_json::from_str(&stored).unwrap();
    stored["state"]["phase"] = json!("running");
    stored["state"]["weight"] = serde_json::to_value(Weight::parse(weight).unwrap()).unwrap();
    RolloutRow {
        rollout_id: id.to_owned(),
        name: rollout.name.clone(),
        version: 1,
        state: stored.to_string(),
        updated_at: NOW,
    }
}

fn in_force(planes: &watch::Receiver<Arc<Plane>>) -> Vec<(String, String)> {
    let rollouts = &planes.borrow().rollouts;
    let told = rollouts.iter();
    told.map(|it| {
        (
            it.rollout_id.clone(),
            it.weights.snapshot().weight.to_string(),
        )
    })
    .collect()
}

fn check(rows: &[RolloutRow], canary: &str, expected: [(&str, &str); 2]) {
    let mut stand_by = StandBy::begin(config(canary)).unwrap();
    let planes = stand_by.planes();
    stand_by.follow(rows);
    let expected = expected.map(|(id, weight)| (id.to_owned(), weight.to_owned()));
    assert_eq!(in_force(&planes), expected);
}

#[test]
fn stored_weights_are_in_force_and_what_is_not_stored_is_legacys() {
    let old = config("b.example.com");
    let second = row(&old, 1, "rest-4", "40%");
    check(&[], "b.example.com", [("first-1", "0%"), ("rest-1", "0%")]);
    check(
        std::slice::from_ref(&second),
        "b.example.com",
        [("first-1", "0%"), ("rest-4", "40%")],
    );
    // Another canary begins anew, as it would under a driver.
    check(
        std::slice::from_ref(&second),
        "c.example.com",
        [("first-1", "0%"), ("rest-5", "0%")],
    );
    let unreadable = RolloutRow {
        state: "{}".to_owned(),
        ..second
    };
    check(
        &[unreadable],
        "b.example.com",
        [("first-1", "0%"), ("rest-5", "0%")],
    );
}

#[test]
fn weights_follow_the_store_without_a_new_plane_until_an_id_changes() {
    let config = config("b.example.com");
    let mut stand_by = StandBy::begin(config.clone()).unwrap();
    let mut planes = stand_by.planes();
    for (weight, id, is_new) in [
        ("5%", "rest-1", false),
        ("25%", "rest-1", false),
        ("0%", "rest-1", false),
        ("1%", "rest-2", true),
    ] {
        stand_by.follow(&[row(&config, 1, id, weight)]);
        assert_eq!(in_force(&planes)[1], (id.to_owned(), weight.to_owned()));
        assert_eq!(planes.has_changed().unwrap(), is_new, "{id} {weight}");
        planes.mark_unchanged();
    }
    assert_eq!(stand_by.weights(), "first 0%, rest 1%");
    let epochs: Vec<_> = stand_by
        .epochs
        .iter()
        .map(|(epoch, keys)| (*epoch, &*keys[1].id))
        .collect();
    assert_eq!(epochs, [(0, "rest-1"), (1, "rest-2")]);
}
