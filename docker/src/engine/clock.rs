//! The engine's clock, which need not agree with ours.
//!
//! Engines say the time as a date, and take it as seconds since 1970.

/// Of `2026-11-26T00:21:46.1Z` or `…+01:00`, whole seconds, down. `None`: it is no such date.
pub(super) fn unix_seconds(date: &str) -> Option<i64> {
    let (day, time) = date.split_once('T')?;
    let mut numbers = day.splitn(3, '-').map(|it| it.parse::<i64>().ok());
    let (year, month, day) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let clock = time.get(..8)?;
    let seconds = seconds(clock)?;
    let zone = time.get(8..)?.trim_start_matches(|it: char| it == '.' || it.is_ascii_digit());
    let offset = match zone.split_at_checked(1)? {
        ("Z", "") => 0,
        ("+", offset) => self::seconds(offset)?,
        ("-", offset) => -self::seconds(offset)?,
        _ => return None,
    };
    Some(days_since_1970(year, month, day) * 86_400 + seconds - offset)
}

/// Of `HH:MM` or `HH:MM:SS`.
fn seconds(clock: &str) -> Option<i64> {
    let mut seconds = 0;
    let mut unit = 3_600;
    for part in clock.splitn(3, ':') {
        seconds += part.parse::<i64>().ok().filter(|it| (0..=60).contains(it))? * unit;
        unit /= 60;
    }
    Some(seconds)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let is_leap = leaps(year) > leaps(year - 1);
    let before = usize::try_from(month - 1).ok().and_then(|it| BEFORE.get(it)).copied();
    let leap_day = i64::from(is_leap && month > 2);
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + before.unwrap_or(0) + leap_day + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_every_zone() {
        for (date, wanted) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T23:59:59Z", Some(951_868_799)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("2026-11-26T00:21:46.123456789Z", Some(1_795_652_506)),
            ("2026-11-26T01:21:46.1+01:00", Some(1_795_652_506)),
            ("2026-11-25T18:51:46-05:30", Some(1_795_652_506)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("2026-11-26", None),
            ("2026-13-26T00:00:00Z", None),
            ("2026-11-26T00:00:00", None),
            ("2026-11-26T00:00:00CET", None),
            ("now", None),
            ("", None),
        ] {
            assert_eq!(unix_seconds(date), wanted, "{date}");
        }
    }
}
