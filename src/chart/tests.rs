//! What a chart must hold, whoever shows it.

use super::*;

/// 2026-11-21T13:00:00Z
const FROM: UnixMillis = UnixMillis(1_795_266_000_000);
const HOUR: i64 = 3_600_000;

fn frame(hours: i64) -> Frame {
    Frame {
        width: 800,
        height: 220,
        from: FROM,
        to: FROM.plus_millis(hours * HOUR),
        utc_offset_min: 0,
    }
}

fn point(minutes: i64, value: Option<f64>) -> Point {
    Point {
        at: FROM.plus_millis(minutes * 60_000),
        value,
        band: value.map(|v| (v * 0.9, v * 1.1)),
    }
}

fn metric_of(unit: Unit, legacy: &[Point], canary: &[Point]) -> String {
    metric(
        &frame(2),
        "Error rate",
        unit,
        PerArm { legacy, canary },
        300_000,
    )
    .unwrap()
}

#[test]
fn the_course_of_the_weight_has_its_line_its_area_and_its_marks() {
    let steps = [
        (FROM.plus_millis(-HOUR), 0.05),
        (FROM.plus_millis(HOUR), 0.25),
        (FROM.plus_millis(2 * HOUR), 0.0),
        (FROM.plus_millis(9 * HOUR), 1.0),
    ];
    let kinds = ["promote", "trip", "hold", "set-weight", "complete"];
    let marks: Vec<_> = kinds
        .iter()
        .zip(1..)
        .map(|(kind, hour)| Mark {
            at: FROM.plus_millis(hour * HOUR / 2),
            kind,
            weight: 0.25,
        })
        .collect();
    let text = weight(&frame(3), "Weight", &steps, &marks).unwrap();
    assert_eq!(text.matches("<polyline").count(), 1 + 5 + times_in(&text));
    for colour in ["#E69F00", "#D55E00", "#009E73", "#6E7781", "#AA4499"] {
        assert!(text.contains(colour), "{colour} is missing:\n{text}");
    }
    assert!(
        text.contains("From 5% to 0% of the traffic on the canary, between 0% and 25%"),
        "{text}"
    );
}

/// Lines at the labels of the time axis.
fn times_in(text: &str) -> usize {
    text.lines()
        .filter(|line| line.len() == 5 && line.get(2..3) == Some(":"))
        .count()
}

#[test]
fn nothing_is_drawn_where_nothing_was() {
    let points = [
        point(1, Some(0.1)),
        point(2, Some(0.2)),
        point(3, None),
        point(4, Some(0.1)),
        point(5, Some(0.1)),
        point(90, Some(0.3)),
    ];
    let text = metric_of(Unit::Share, &points, &[]);
    let lines = |tag: &str, colour: &str| {
        text.lines()
            .filter(|line| line.starts_with(tag) && line.contains(colour))
            .count()
    };
    assert_eq!(lines("<polyline", "stroke=\"#0072B2\""), 2);
    assert_eq!(lines("<circle", "fill=\"#0072B2\""), 1);
    assert_eq!(lines("<polygon", "fill=\"#0072B2\""), 2);
    assert!(!text.contains("#E69F00"), "an arm without traffic is drawn");
    assert!(text.contains("legacy lately 30%; canary without traffic"));
    assert!(metric_of(Unit::Share, &[], &[]).contains("no traffic in this time"));
}

#[test]
fn no_chart_needs_a_script_a_style_or_another_host_and_no_title_breaks_it() {
    let title = "<script>alert('&\"\u{7}')</script>";
    let points = [point(1, Some(f64::NAN)), point(2, Some(f64::INFINITY))];
    let arms = PerArm {
        legacy: &points[..],
        canary: &points[..],
    };
    for text in [
        weight(&frame(1), title, &[(FROM, 0.5)], &[]).unwrap(),
        metric(&frame(1), title, Unit::Millis, arms, 300_000).unwrap(),
    ] {
        assert!(text.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(text.trim_end().ends_with("</svg>"), "{text}");
        assert!(text.contains("&lt;script&gt;alert("), "{text}");
        for bad in ["<script", "style=", "href", "NaN", "inf", "\u{7}"] {
            assert!(!text.contains(bad), "{bad}:\n{text}");
        }
        assert_eq!(text.matches("http").count(), 1);
    }
}

#[test]
fn the_root_says_where_the_plot_is_and_what_it_spans() {
    let text = metric_of(
        Unit::Millis,
        &[point(1, Some(180.0)), point(2, Some(170.0))],
        &[],
    );
    let head = text.lines().next().unwrap();
    for part in [
        "width=\"800\" height=\"220\"",
        "role=\"img\"",
        "data-left=\"47\" data-top=\"10\" data-width=\"739\" data-height=\"186\"",
        "data-from=\"1795266000000\" data-to=\"1795273200000\" data-max=\"200\"",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
}

#[test]
fn labels_of_values_are_short_and_of_one_unit() {
    let check = |unit, highest, expected: &[&str]| {
        let scale = scale::values(unit, highest, 220);
        let labels: Vec<_> = scale.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(labels, expected, "{unit:?} {highest}");
        assert!(scale.max >= highest.min(1e300), "{unit:?} {highest}");
    };
    check(
        Unit::Share,
        0.0,
        &["0%", "0.2%", "0.4%", "0.6%", "0.8%", "1%"],
    );
    check(
        Unit::Share,
        0.43,
        &["0%", "10%", "20%", "30%", "40%", "50%"],
    );
    check(
        Unit::Millis,
        870.0,
        &["0s", "0.2s", "0.4s", "0.6s", "0.8s", "1s"],
    );
    check(Unit::Millis, 4_900.0, &["0s", "1s", "2s", "3s", "4s", "5s"]);
    check(
        Unit::Usd,
        0.021,
        &["$0", "$0.005", "$0.01", "$0.015", "$0.02", "$0.025"],
    );
    check(Unit::PerSecond, 52_000.0, &["0", "20k", "40k", "60k"]);
}

#[test]
fn labels_of_times_fit_the_span_and_follow_the_offset() {
    let check = |minutes: i64, offset, width, expected: &[&str]| {
        let frame = Frame {
            to: FROM.plus_millis(minutes * 60_000),
            utc_offset_min: offset,
            ..frame(1)
        };
        let times = scale::times(&frame, width);
        let labels: Vec<_> = times.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            labels, expected,
            "{minutes} min, offset {offset}, {width} px"
        );
    };
    check(1, 0, 300, &["13:00:00", "13:00:30", "13:01:00"]);
    check(60, 0, 330, &["13:00", "13:15", "13:30", "13:45", "14:00"]);
    check(60, 330, 330, &["18:30", "18:45", "19:00", "19:15", "19:30"]);
    check(24 * 60, 0, 400, &["18:00", "Nov 22", "06:00", "12:00"]);
    check(7 * 1_440, 0, 400, &["Nov 23", "Nov 25", "Nov 27"]);
    check(30 * 1_440, -480, 300, &["Nov 23", "Dec 3", "Dec 13"]);
}

#[test]
fn values_read_as_people_say_them() {
    let cases = [
        (Unit::Share, 0.0042, "0.42%"),
        (Unit::Share, 1.0, "100%"),
        (Unit::Millis, 182.4, "182ms"),
        (Unit::Millis, 1_344.0, "1.34s"),
        (Unit::Usd, 0.0213, "$0.0213"),
        (Unit::PerSecond, 37.04, "37"),
    ];
    for (unit, value, expected) in cases {
        assert_eq!(text_of(unit, value), expected);
    }
}
