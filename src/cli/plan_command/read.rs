//! The values that `cutover plan` takes, each refused with what to write instead.
//!
//! Pure text to numbers.

/// Tokens of an average request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tokens {
    pub(super) input: f64,
    pub(super) output: f64,
}

/// `10/min`, `3/s`, `1000/h`: requests per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let wrong = || "write a number and a unit above 0, like 10/min, 3/s or 1000/h".to_owned();
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match unit.trim() {
        "s" | "sec" | "second" => 1.0,
        "m" | "min" | "minute" => 60.0,
        "h" | "hour" => 3_600.0,
        "d" | "day" => 86_400.0,
        _ => return Err(wrong()),
    };
    let rate = number.trim().parse::<f64>().map_err(|_| wrong())? / seconds;
    // Below one request a day and above what one machine carries is a slip of the finger.
    if (1e-5..=1e7).contains(&rate) {
        Ok(rate)
    } else {
        Err(wrong())
    }
}

/// `0.5%` as a fraction.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let wrong = || "write a share from 0% to 100%, like 0.5%".to_owned();
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim();
    let percent: f64 = number.parse().map_err(|_| wrong())?;
    if (0.0..=100.0).contains(&percent) {
        Ok(percent / 100.0)
    } else {
        Err(wrong())
    }
}

/// `1200/300`: tokens in and out of an average request.
pub(super) fn tokens(text: &str) -> Result<Tokens, String> {
    let wrong = || "write tokens in and out of an average request, like 1200/300".to_owned();
    let (input, output) = text.split_once('/').ok_or_else(wrong)?;
    let count = |text: &str| {
        let count: f64 = text.trim().parse().map_err(|_| wrong())?;
        if (0.0..=1e9).contains(&count) {
            Ok(count)
        } else {
            Err(wrong())
        }
    };
    Ok(Tokens {
        input: count(input)?,
        output: count(output)?,
    })
}
