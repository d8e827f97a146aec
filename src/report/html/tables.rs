//! The tables of the page: both arms, their differences, money.
//!
//! Pure.
#![deny(clippy::disallowed_methods)]

use super::{text, write};
use crate::chart::Unit;
use crate::report::words::{self, count, money};
use crate::report::{Estimate, Masked, Report, Savings, table};

pub(super) fn differences(page: &mut String, report: &Report) {
    write(page, "<section>\n<h2>Both arms at the same times</h2>\n");
    if report.differences.is_empty() {
        write(page, "<p>Nothing to compare yet.</p>\n</section>\n");
        return;
    }
    write(
        page,
        "<table>\n<thead><tr><th></th><th>legacy</th><th>canary</th><th>the canary is</th></tr></thead>\n\
         <tbody>\n",
    );
    for it in &report.differences {
        let (name, unit) = words::metric(it.metric);
        let class = match it.is_better {
            Some(true) => "better",
            Some(false) => "worse",
            None => "same",
        };
        write(
            page,
            &format!(
                "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td>\
                 <td class=\"{class}\">{}<small>{}</small></td></tr>\n",
                text(&words::value(unit, it.legacy.value)),
                text(&words::value(unit, it.canary.value)),
                text(&words::verdict(it)),
                text(&words::shift_range(unit, &it.difference))
            ),
        );
    }
    write(
        page,
        "</tbody>\n</table>\n<p class=\"small\">Small print: 95% interval of the canary's value minus legacy's. \
         Each hour (each minute, in a short record) counts by how much both arms can say in it, so that quiet \
         nights of one arm are not held against busy days of the other. Where the interval holds zero there is \
         no measurable difference.</p>\n</section>\n",
    );
}

pub(super) fn arms(page: &mut String, report: &Report) {
    write(
        page,
        "<section>\n<h2>What each arm did</h2>\n<table>\n\
         <thead><tr><th></th><th>legacy</th><th>canary</th></tr></thead>\n<tbody>\n",
    );
    for (name, both) in table::rows(&report.arms.legacy, &report.arms.canary) {
        write(page, &format!("<tr><th scope=\"row\">{name}</th>"));
        for (value, more) in both {
            let (value, more) = (text(&value), text(&more));
            let small = if more.is_empty() {
                String::new()
            } else {
                format!("<small>{more}</small>")
            };
            write(page, &format!("<td>{value}{small}</td>"));
        }
        write(page, "</tr>\n");
    }
    for (name, of) in [
        (
            "failed or answered with 429",
            (|it| it.failed) as fn(&Masked) -> u64,
        ),
        ("of these, made good by failover or a retry", |it| {
            it.made_good
        }),
        ("of these, seen by clients", |it| it.reached_clients),
    ] {
        let [legacy, canary] = [&report.masked.legacy, &report.masked.canary].map(of);
        if legacy + canary > 0 {
            write(
                page,
                &format!(
                    "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td></tr>\n",
                    count(legacy),
                    count(canary)
                ),
            );
        }
    }
    write(
        page,
        "</tbody>\n</table>\n<p class=\"small\">Small print: 95% intervals. Each arm over all of its own \
         traffic; to compare them, use the table above.</p>\n</section>\n",
    );
}

pub(super) fn write_savings(page: &mut String, savings: &Savings) {
    let estimate = |it: &Estimate| {
        format!(
            "{} <small>{}</small>",
            text(&money(it.value)),
            text(&words::range(Unit::Usd, it))
        )
    };
    write(
        page,
        &format!(
            "<section>\n<h2>Money</h2>\n<table>\n<tbody>\n\
             <tr><th scope=\"row\">saved so far, by {} answers</th><td>{}</td></tr>\n",
            count(savings.canary_requests),
            estimate(&savings.so_far_usd)
        ),
    );
    if let Some(per_month) = &savings.per_month_usd {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` stops at the ends"
        )]
        let traffic = savings.requests_per_month.unwrap_or(0.0).round() as u64;
        let traffic = count(traffic);
        write(
            page,
            &format!(
                "<tr><th scope=\"row\">per month of {traffic} requests</th><td>{}</td></tr>\n",
                estimate(per_month)
            ),
        );
    }
    write(
        page,
        &format!(
            "</tbody>\n</table>\n<p class=\"small\">{}</p>\n</section>\n",
            text(&savings.method)
        ),
    );
}
