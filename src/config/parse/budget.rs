//! `[[budget]]`: sums of money per day that people want to be told of, and the rules that span tables.
//!
//! Reads values and notes faults. A budget that could never be reached, because nothing that it covers has
//! a price, is a fault: it would look like one that holds.

use super::super::raw::{Field, Place, Reader, Section, Wrong};
use super::super::values::Glob;
use super::super::{BudgetConfig, Config};
use super::{defaults, leaf};
use crate::arm::Arm;
use crate::sample::Sample;

/// Where a budget stands in the file.
pub(super) struct BudgetPlace {
    name: Place,
    model: Place,
    tag: Place,
}

/// Each one with the places that its faults belong to.
pub(super) fn budgets(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
) -> Vec<(BudgetConfig, BudgetPlace)> {
    let Some(field) = root.get("budget") else {
        return Vec::new();
    };
    let elements = field.elements().unwrap_or_else(|| vec![field.clone()]);
    if elements.len() > defaults::BUDGETS_MOST {
        let problem = format!("more than {} budgets", defaults::BUDGETS_MOST);
        reader.fault(&field.place, Wrong::new(problem, "remove some"));
    }
    let read = elements
        .iter()
        .filter_map(|element| budget(reader, element));
    read.collect()
}

fn budget(reader: &mut Reader<'_>, element: &Field<'_>) -> Option<(BudgetConfig, BudgetPlace)> {
    let section = reader.open(element, "budget");
    element.value.as_table()?;
    for (key, remedy) in [
        ("name", "add name = \"canary\""),
        ("usd-per-day", "add usd-per-day = 100"),
    ] {
        if section.get(key).is_none() {
            let wrong = Wrong::new(format!("a budget needs its {key}"), remedy);
            reader.fault(&section.place, wrong);
        }
    }
    let words = Arm::BOTH.map(|arm| (arm.as_str(), arm));
    let arm = reader.read(&section, "arm", |field| leaf::word(field, &words));
    let model = reader.read(&section, "model", leaf::text);
    let tag = reader.read(&section, "tag", tag);
    let name = reader.read(&section, "name", name);
    let usd_per_day = reader.read(&section, "usd-per-day", dollars);
    let place = BudgetPlace {
        name: section.place_of("name"),
        model: section.place_of("model"),
        tag: section.place_of("tag"),
    };
    let budget = BudgetConfig {
        name: name?,
        usd_per_day: usd_per_day?,
        arm,
        model: model.as_deref().map(Glob::new),
        tag,
    };
    Some((budget, place))
}

fn name(field: &Field<'_>) -> Result<String, Wrong> {
    let name = leaf::text(field)?;
    let is_good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.len() <= 64 && name.bytes().all(is_good) {
        Ok(name)
    } else {
        Err(Wrong::new(
            "a budget's name goes into logs and scripts",
            "use 1 to 64 of a-z, 0-9, - and _",
        ))
    }
}

fn dollars(field: &Field<'_>) -> Result<f64, Wrong> {
    let usd = leaf::number(field)?;
    if usd > 0.0 {
        Ok(usd)
    } else {
        Err(Wrong::new(
            "a budget of nothing is spent at once",
            "write US dollars per day, like 100 or 0.5",
        ))
    }
}

fn tag(field: &Field<'_>) -> Result<String, Wrong> {
    let tag = leaf::text(field)?;
    match Sample::tag_of(tag.as_bytes()) {
        Some(clean) if *clean == *tag => Ok(tag),
        _ => Err(Wrong::new(
            "no request can have this tag",
            "write the value of the tag header: at most 64 visible ASCII characters",
        )),
    }
}

/// The rules that need the other tables.
pub(super) fn check(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    config: &Config,
    places: &[BudgetPlace],
) {
    let has_tag_header = root.find(&["proxy", "tag-header"]).is_some();
    let mut seen: Vec<&str> = Vec::new();
    for (budget, place) in config.budgets.iter().zip(places) {
        let name = budget.name.as_str();
        if seen.contains(&name) {
            let wrong = Wrong::new(
                format!("a second budget called \"{name}\""),
                "give each [[budget]] a name of its own",
            );
            reader.fault(&place.name, wrong);
        }
        seen.push(name);
        if budget.tag.is_some() && !has_tag_header {
            let wrong = Wrong::new(
                "no request has a tag, because tag-header is not set",
                "add tag-header = \"x-team\" under [proxy], or remove this line",
            );
            reader.fault(&place.tag, wrong);
        }
        check_prices(reader, root, config, budget, place);
    }
}

fn check_prices(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    config: &Config,
    budget: &BudgetConfig,
    place: &BudgetPlace,
) {
    let covered: Vec<Arm> = Arm::BOTH
        .into_iter()
        .filter(|arm| budget.arm.is_none_or(|only| only == *arm))
        .collect();
    // Prices that are written but wrong have faults of their own.
    let unpriced: Vec<Arm> = covered
        .iter()
        .copied()
        .filter(|arm| root.find(&["arms", arm.as_str(), "prices"]).is_none())
        .collect();
    if unpriced.len() == covered.len() {
        let names: Vec<String> = covered.iter().map(|arm| format!("[arms.{arm}]")).collect();
        let names = names.join(" and ");
        let verb = if covered.len() == 1 { "has" } else { "have" };
        let wrong = Wrong::new(
            format!("{names} {verb} no prices, so this budget would never be spent"),
            format!("give {names} prices = {{ \"MODEL\" = {{ input = 2.0, output = 8.0 }} }}"),
        );
        reader.fault(&place.name, wrong);
        return;
    }
    for arm in unpriced {
        reader.warn(
            &place.name,
            &format!("[arms.{arm}] has no prices: what it costs is unknown and not counted here"),
            "give it prices, or name one arm with arm = \"...\"",
        );
    }
    let priced = covered
        .iter()
        .flat_map(|arm| config.arms.get(*arm).prices.keys());
    let mut priced = priced.peekable();
    if priced.peek().is_some()
        && let Some(glob) = &budget.model
        && !priced.any(|model| glob.matches(model))
    {
        let wrong = Wrong::new(
            "no model with a price matches, so this budget would never be spent",
            "name a model as in prices; it is the arm's own name, not the client's",
        );
        reader.fault(&place.model, wrong);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EXAMPLE, parse};

    const BASE: &str = "
        [proxy]
        tag-header = \"x-team\"
        [arms.legacy]
        base-url = \"https://a.example.com\"
        [arms.canary]
        base-url = \"https://b.example.com\"
        api-key = \"client\"
        prices = { \"gpt-4.1\" = { input = 2, output = 8 } }
        ";

    fn faults(budget: &str) -> Vec<String> {
        let env = |_: &str| None;
        let said = match parse(&format!("{BASE}{budget}"), &env) {
            Ok(parsed) => parsed.warnings,
            Err(faults) => faults,
        };
        said.iter()
            .map(|fault| format!("{}: {}", fault.path, fault.problem))
            .collect()
    }

    #[test]
    fn a_budget_that_could_never_be_reached_is_a_fault() {
        let never = "so this budget would never be spent";
        let cases = [
            ("arm = \"canary\"", String::new()),
            ("arm = \"canary\"\nmodel = \"gpt-*\"\ntag = \"search\"", String::new()),
            (
                "arm = \"legacy\"",
                format!("budget[0].name: [arms.legacy] has no prices, {never}"),
            ),
            (
                "arm = \"canary\"\nmodel = \"claude-*\"",
                format!("budget[0].model: no model with a price matches, {never}"),
            ),
            (
                "",
                "budget[0].name: [arms.legacy] has no prices: what it costs is unknown and not counted here"
                    .to_owned(),
            ),
            (
                "arm = \"canary\"\ntag = \" x\"",
                "budget[0].tag: no request can have this tag".to_owned(),
            ),
        ];
        for (lines, expected) in cases {
            let budget = format!("[[budget]]\nname = \"day\"\nusd-per-day = 5\n{lines}");
            assert_eq!(faults(&budget).join("\n"), expected, "{lines}");
        }
        let untagged = format!(
            "{BASE}[[budget]]\nname = \"a\"\nusd-per-day = 1\narm = \"canary\"\ntag = \"x\""
        )
        .replace("tag-header = \"x-team\"", "");
        let found = parse(&untagged, &|_| None).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].problem.contains("tag-header is not set"));
    }

    #[test]
    fn a_budget_has_a_name_of_its_own_and_a_sum() {
        let one = "[[budget]]\nname = \"day\"\nusd-per-day = 5\narm = \"canary\"\n";
        let twice = faults(&format!("{one}{one}"));
        assert_eq!(twice, ["budget[1].name: a second budget called \"day\""]);
        for (lines, problem) in [
            ("usd-per-day = 5", "budget[0]: a budget needs its name"),
            ("name = \"a\"", "budget[0]: a budget needs its usd-per-day"),
            (
                "name = \"A b\"\nusd-per-day = 5",
                "budget[0].name: a budget's name goes into logs and scripts",
            ),
            (
                "name = \"a\"\nusd-per-day = 0",
                "budget[0].usd-per-day: a budget of nothing is spent at once",
            ),
            (
                "name = \"a\"\nusd-per-day = -1",
                "budget[0].usd-per-day: the number is out of range",
            ),
        ] {
            let found = faults(&format!("[[budget]]\n{lines}\narm = \"canary\""));
            assert_eq!(found, [problem], "{lines}");
        }
    }

    #[test]
    fn the_budget_of_the_example_is_one() {
        // It needs prices, so it is shown as a block of its own that a test of single lines cannot take.
        let mark = "#     ";
        let shown: Vec<&str> = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix(mark))
            .collect();
        assert_eq!(shown.first(), Some(&"[[budget]]"));
        let text = format!("{BASE}{}", shown.join("\n"));
        let parsed = parse(&text, &|_| None).unwrap();
        let [budget] = parsed.config.budgets.as_slice() else {
            panic!("not one budget")
        };
        assert!(budget.arm.is_some() && budget.model.is_some() && budget.tag.is_some());
    }
}
