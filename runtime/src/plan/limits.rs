//! Amounts of memory and CPU as they are typed and shown.

use std::fmt;
use std::str::FromStr;

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize {
    /// In bytes.
    pub bytes: u64,
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("give a number of bytes, or one with k, m, g or t behind it")]
    MemoryForm,
    #[error("no machine has that much memory")]
    MemoryOverflow,
    #[error("give a number such as 2 or 1.5")]
    CpusForm,
    #[error("give at least 0.01")]
    CpusTooFew,
}

/// Digits of a fraction that count; more are accepted.
const FRACTION_DIGITS: usize = 9;

/// A non-negative decimal number as a whole part and billionths.
fn decimal(text: &str) -> Option<Result<(u64, u64), ()>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    if text.contains('.') && fraction.is_empty() {
        return None;
    }
    let padded: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(FRACTION_DIGITS)
        .collect();
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(whole.parse().map_err(drop).and_then(|whole| {
        let billionths = padded.parse().map_err(drop)?;
        Ok((whole, billionths))
    }))
}

impl FromStr for MemorySize {
    type Err = AmountError;

    /// As Docker reads sizes: powers of 1024, `512m`, `512mb` and `512MiB` alike, fractions allowed.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let lower = text.to_ascii_lowercase();
        let end = lower
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(end);
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let shift = match unit
            .strip_suffix("ib")
            .or(unit.strip_suffix('b'))
            .unwrap_or(unit)
        {
            "" if unit != "ib" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return Err(AmountError::MemoryForm),
        };
        let (whole, billionths) = decimal(number)
            .ok_or(AmountError::MemoryForm)?
            .map_err(|()| AmountError::MemoryOverflow)?;
        let fraction = ((u128::from(billionths)) << shift) / 1_000_000_000;
        let bytes = (u128::from(whole) << shift) + fraction;
        u64::try_from(bytes)
            .ok()
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(|bytes| Self { bytes })
            .ok_or(AmountError::MemoryOverflow)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in units {
            if self.bytes >= 1 << shift {
                let tenths = (u128::from(self.bytes) * 10) >> shift;
                return match tenths % 10 {
                    0 => write!(f, "{} {unit}", tenths / 10),
                    tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
                };
            }
        }
        match self.bytes {
            1 => f.write_str("1 byte"),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// A share of the host's CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus {
    /// In hundredths of a CPU; at least 1.
    pub hundredths: u64,
}

impl Cpus {
    /// vCPUs that can use the share: rounded up.
    #[must_use]
    pub fn vcpus(self) -> u64 {
        self.hundredths.div_ceil(100)
    }
}

impl FromStr for Cpus {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (whole, billionths) = decimal(text)
            .ok_or(AmountError::CpusForm)?
            .map_err(|()| AmountError::CpusForm)?;
        let hundredths = whole
            .checked_mul(100)
            .and_then(|whole| whole.checked_add(billionths / 10_000_000))
            .ok_or(AmountError::CpusForm)?;
        if hundredths == 0 {
            return Err(AmountError::CpusTooFew);
        }
        Ok(Self { hundredths })
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.hundredths / 100, self.hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_forms() {
        let good: [(&str, u64); 10] = [
            ("0", 0),
            ("1", 1),
            ("4096b", 4096),
            ("64k", 64 << 10),
            ("512m", 512 << 20),
            ("512MB", 512 << 20),
            ("512MiB", 512 << 20),
            ("1.5g", 3 << 29),
            (".5g", 1 << 29),
            ("2t", 2 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(text.parse(), Ok(MemorySize { bytes }), "{text}");
        }
        for text in [
            "", "m", "lots", "-1", "1.m", "1..2", "1x", "1mm", "0x10", "1ib", "+1", ".",
        ] {
            assert_eq!(
                text.parse::<MemorySize>(),
                Err(AmountError::MemoryForm),
                "{text}"
            );
        }
        for text in ["99999999999999999999", "9223372036854775808", "9999999p"] {
            assert_eq!(
                text.parse::<MemorySize>(),
                Err(AmountError::MemoryOverflow),
                "{text}"
            );
        }
    }

    #[test]
    fn memory_shown() {
        let shown = |bytes| MemorySize { bytes }.to_string();
        assert_eq!(shown(1), "1 byte");
        assert_eq!(shown(8 << 20), "8 MiB");
        assert_eq!(shown(3 << 29), "1.5 GiB");
        assert_eq!(shown(i64::MAX as u64), "8388607.9 TiB");
    }

    #[test]
    fn cpu_forms() {
        assert_eq!("1.5".parse(), Ok(Cpus { hundredths: 150 }));
        assert_eq!("2".parse::<Cpus>().map(Cpus::vcpus), Ok(2));
        assert_eq!("0.01".parse::<Cpus>().map(Cpus::vcpus), Ok(1));
        assert_eq!("1.5".parse::<Cpus>().map(Cpus::vcpus), Ok(2));
        assert_eq!("0.001".parse::<Cpus>(), Err(AmountError::CpusTooFew));
        for text in ["", "-1", "two", "1e3", "nan", "99999999999999999999"] {
            assert_eq!(text.parse::<Cpus>(), Err(AmountError::CpusForm), "{text}");
        }
        assert_eq!(Cpus { hundredths: 305 }.to_string(), "3.05");
    }
}
