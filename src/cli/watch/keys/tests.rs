use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::arm::Weight;
use crate::cli::watch::feed::News;
use crate::clock::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn rollout(name: &str, weight: f64) -> Value {
    json!({
        "name": name, "state": "running", "weight": weight, "stage": {"weight": weight},
        "stages": [0.01, 0.25, 0.5, 1.0], "attempt": 1,
    })
}

fn screen() -> Screen {
    let mut screen = Screen::new("127.0.0.1:8081", NOW);
    let rollouts = [rollout("default", 0.25), rollout("search", 0.01)];
    screen.hear(News::Status(json!({ "rollouts": rollouts })), NOW);
    screen
}

/// `<Enter>` and the like are keys, all else is typed.
fn press(screen: &mut Screen, keys: &str) -> Effect {
    let mut effect = Effect::None;
    let mut rest = keys;
    while let Some(c) = rest.chars().next() {
        let named = [
            ("<Enter>", KeyCode::Enter),
            ("<Esc>", KeyCode::Esc),
            ("<Tab>", KeyCode::Tab),
            ("<Back>", KeyCode::Backspace),
            ("<Down>", KeyCode::Down),
            ("<Up>", KeyCode::Up),
        ];
        let (code, length) = named
            .iter()
            .find(|(name, _)| rest.starts_with(name))
            .map_or((KeyCode::Char(c), c.len_utf8()), |(name, code)| {
                (*code, name.len())
            });
        rest = &rest[length..];
        effect = screen.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    effect
}

fn order(action: Action, rollout: &str, weight: Option<u16>, reason: &str) -> Effect {
    Effect::Send(Order {
        action,
        rollout: rollout.to_owned(),
        weight: weight.and_then(Weight::from_bps),
        reason: reason.to_owned(),
    })
}

#[test]
fn each_order_takes_its_key_a_reason_and_enter() {
    let cases = [
        (
            "hlunch<Enter>",
            order(Action::Hold, "default", None, "lunch"),
        ),
        ("r<Enter>", order(Action::Resume, "default", None, "")),
        (
            "pgo quickly<Enter>",
            order(Action::Promote, "default", None, "go quickly"),
        ),
        ("b<Enter>", order(Action::RollBack, "default", None, "")),
        ("<Tab>t<Enter>", order(Action::Retry, "search", None, "")),
        (
            "w25<Enter>test<Enter>",
            order(Action::SetWeight, "default", Some(2_500), "test"),
        ),
        (
            "w2.5%<Enter><Enter>",
            order(Action::SetWeight, "default", Some(250), ""),
        ),
        (
            "w30<Back><Back>4<Enter><Enter>",
            order(Action::SetWeight, "default", Some(400), ""),
        ),
        (
            "hab<Back>c<Enter>",
            order(Action::Hold, "default", None, "ac"),
        ),
        ("h<Esc>", Effect::None),
        ("w250<Enter><Enter>", Effect::None),
        ("w<Enter><Enter>", Effect::None),
        ("?p", Effect::None),
        ("xyz<Enter><Enter>", Effect::None),
        ("q", Effect::Quit),
        ("<Esc>", Effect::Quit),
        (" ", Effect::Look),
    ];
    for (keys, expected) in cases {
        assert_eq!(press(&mut screen(), keys), expected, "{keys}");
    }
}

#[test]
fn a_weight_that_is_no_share_is_refused_in_the_prompt() {
    let mut screen = screen();
    press(&mut screen, "w250<Enter>");
    let Mode::Ask(prompt) = &screen.mode else {
        panic!("the prompt is gone")
    };
    assert!(prompt.note.as_ref().unwrap().contains("250%"), "{prompt:?}");
    assert_eq!(prompt.field, Field::Weight);
}

#[test]
fn an_order_to_raise_is_asked_again_when_the_ground_has_moved() {
    for (key, is_asked_again) in [
        ('p', true),
        ('r', true),
        ('w', true),
        ('h', false),
        ('b', false),
    ] {
        let mut screen = screen();
        press(&mut screen, &key.to_string());
        if key == 'w' {
            press(&mut screen, "50<Enter>");
        }
        let moved = [rollout("default", 0.5), rollout("search", 0.01)];
        screen.hear(News::Status(json!({ "rollouts": moved })), NOW);
        let effect = press(&mut screen, "<Enter>");
        assert_eq!(effect == Effect::None, is_asked_again, "{key}");
        if is_asked_again {
            assert_ne!(
                press(&mut screen, "<Enter>"),
                Effect::None,
                "{key}: read, and meant"
            );
        }
    }
}

#[test]
fn the_prompt_keeps_its_rollout_and_the_picture_its_place() {
    let mut screen = screen();
    press(&mut screen, "<Tab>p");
    screen.hear(
        News::Status(json!({ "rollouts": [rollout("search", 0.01)] })),
        NOW,
    );
    assert_eq!(screen.selected, 0, "the same rollout, in its new place");
    assert_eq!(
        press(&mut screen, "<Enter>"),
        order(Action::Promote, "search", None, "")
    );
}

#[test]
fn a_pasted_text_is_typed_and_never_acts() {
    let mut screen = screen();
    screen.paste("b\n");
    assert_eq!(screen.mode, Mode::Look);
    press(&mut screen, "h");
    screen.paste("line one\nline two\x1b");
    assert_eq!(
        press(&mut screen, "<Enter>"),
        order(Action::Hold, "default", None, "line oneline two")
    );
}

#[test]
fn control_c_ends_everywhere_and_other_controls_do_nothing() {
    for keys in ["", "?", "p", "w25<Enter>"] {
        let mut screen = screen();
        press(&mut screen, keys);
        let end = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.press(end), Effect::Quit, "{keys}");
    }
    let mut screen = screen();
    screen.press(KeyEvent::new(KeyCode::Char('p'), KeyModifiers::CONTROL));
    assert_eq!(screen.mode, Mode::Look);
}

#[test]
fn without_an_answer_of_the_daemon_there_is_nothing_to_order() {
    let mut screen = Screen::new("127.0.0.1:8081", NOW);
    assert_eq!(
        press(&mut screen, "b<Enter>p<Enter><Tab><Down><Up>"),
        Effect::None
    );
    assert_eq!(screen.mode, Mode::Look);
}

#[test]
fn decisions_scroll_no_further_than_there_are() {
    let mut screen = screen();
    let decisions =
        |rollout: &str, count| News::Decisions(rollout.to_owned(), vec![json!({}); count]);
    screen.hear(decisions("default", 2), NOW);
    screen.hear(decisions("search", 9), NOW);
    press(&mut screen, "<Down><Down><Down>");
    assert_eq!(screen.scroll, 1);
    press(&mut screen, "<Tab>");
    assert_eq!(screen.scroll, 0);
}

proptest! {
    #[test]
    fn nothing_is_sent_without_its_key_and_enter(keys in proptest::collection::vec(any::<char>(), 0..40)) {
        let mut screen = screen();
        for c in keys {
            let effect = screen.press(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
            prop_assert!(!matches!(effect, Effect::Send(_)));
        }
    }
}
