//! Bytes, spans and instants as PM2 prints them.

use musher_core::log::Civil;

/// PM2 changes to the larger unit only from two of it on.
const MIN_OF_UNIT: i64 = 2;

/// Returns a size like `48.3mb`; 1024-based, one decimal unless it is whole.
pub(super) fn bytes(n: f64) -> String {
    let mut size = n;
    let mut unit = "b";
    for larger in ["kb", "mb", "gb", "tb"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    if size.fract() == 0.0 {
        return format!("{size}{unit}");
    }
    format!("{size:.1}{unit}")
}

/// Returns a number with one decimal, or none if that is zero.
pub(super) fn decimal(n: f64) -> String {
    let text = format!("{n:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Returns an instant, milliseconds since the epoch, as JavaScript's
/// `toISOString` does.
pub(super) fn iso(ms: i64) -> String {
    let mut out = Vec::new();
    Civil::at(ms, 0).write_iso(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns a span in milliseconds like `119s`, `2m`, `47h`, `2D`.
pub(super) fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let units = [
        (365 * 86_400, "Y"),
        (30 * 86_400, "M"),
        (86_400, "D"),
        (3600, "h"),
        (60, "m"),
    ];
    for (length, unit) in units {
        if seconds / length >= MIN_OF_UNIT {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_as_pm2_writes_them() {
        for (n, expected) in [
            (0.0, "0b"),
            (1023.0, "1023b"),
            (50_646_220.0, "48.3mb"),
            (54_525_952.0, "52mb"),
            (53_452_800.0, "51.0mb"),
        ] {
            assert_eq!(bytes(n), expected);
        }
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (119 * 60, "119m"),
            (7200, "2h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2D"),
            (60 * 86_400, "2M"),
        ] {
            assert_eq!(span(seconds * 1000), expected);
        }
    }
}
