//! Takes single values out of an attribute that is an object, and collects
//! what is wrong with them under the path of their key.

use crate::app::attributes::ConfigError;
use crate::app::value;
use crate::time::Millis;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Longest span an object may hold: a day.
pub(super) const MAX_SPAN: Millis = Millis(24 * 60 * 60 * 1000);

/// One spelling of a key, and how many milliseconds its number means; 1 where
/// it is no span.
pub(super) type Spelling = (&'static str, u64);

/// An object of a declaration, while it is read.
pub(super) struct Object<'a> {
    /// Path of its key: `readiness`, `readiness.http`.
    path: String,
    from: &'a Map<String, Value>,
    /// Every spelling that means something here.
    known: Vec<&'static str>,
    /// The spelling of each key that is told to people.
    told: Vec<&'static str>,
    pub(super) mistakes: &'a mut Vec<ConfigError>,
}

impl<'a> Object<'a> {
    pub(super) fn new(
        path: &str,
        from: &'a Map<String, Value>,
        mistakes: &'a mut Vec<ConfigError>,
    ) -> Object<'a> {
        Object {
            path: path.to_owned(),
            from,
            known: Vec::new(),
            told: Vec::new(),
            mistakes,
        }
    }

    /// Returns the value under the first of these spellings that is there, with
    /// the spelling.
    pub(super) fn get(&mut self, spellings: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        self.told.extend(spellings.first());
        self.known.extend(spellings);
        let set = |key: &&&str| self.from.get(**key).is_some_and(|value| !value.is_null());
        let key = spellings.iter().find(set).copied()?;
        Some((key, &self.from[key]))
    }

    pub(super) fn mistake(&mut self, key: &str, message: impl Into<String>) {
        let path = path_of(&self.path, key);
        self.mistakes.push(ConfigError::error(&path, message));
    }

    /// Says why a key that others know is none here. Returns whether it is there.
    pub(super) fn refuse(&mut self, key: &'static str, message: &str) -> bool {
        self.known.push(key);
        let is_set = self.from.contains_key(key);
        if is_set {
            self.mistake(key, message);
        }
        is_set
    }

    /// Takes a value, which must be as `expected` says.
    pub(super) fn read<T>(
        &mut self,
        spellings: &[&'static str],
        expected: &str,
        reading: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let (key, value) = self.get(spellings)?;
        let read = reading(value);
        if read.is_none() {
            let path = path_of(&self.path, key);
            self.mistake(
                key,
                format!(
                    "`{path}` must be {expected}, not {}",
                    super::reader::brief(value)
                ),
            );
        }
        read
    }

    /// Takes a span between these bounds.
    pub(super) fn span(&mut self, spellings: &[Spelling], least: Millis) -> Option<Millis> {
        let names: Vec<&'static str> = spellings.iter().map(|(name, _)| *name).collect();
        let (key, value) = self.get(&names)?;
        let unit = spellings.iter().find(|(name, _)| *name == key)?.1;
        let read = match unit {
            1 => value::duration(value),
            // Kubernetes' fields are whole seconds; a fraction is as clear.
            unit => seconds(value, unit),
        };
        let read = read.map(Millis).filter(|span| *span <= MAX_SPAN);
        match read {
            Some(span) if span >= least => Some(span),
            Some(_) | None => {
                let path = path_of(&self.path, key);
                let what = match unit {
                    1 => format!("milliseconds or a span like '10s', at least {} ms", least.0),
                    unit => format!("seconds, at least {}", least.0 as f64 / unit as f64),
                };
                let not = super::reader::brief(value);
                self.mistake(
                    key,
                    format!("`{path}` must be {what} and at most a day, not {not}"),
                );
                None
            }
        }
    }

    /// Takes a whole number between these bounds.
    pub(super) fn number(
        &mut self,
        spellings: &[&'static str],
        bounds: RangeInclusive<u32>,
    ) -> Option<u32> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.read(spellings, &expected, |value| {
            let number = u32::try_from(value::integer(value)?).ok()?;
            bounds.contains(&number).then_some(number)
        })
    }

    /// Says which keys mean nothing here.
    pub(super) fn finish(self) {
        let Object {
            path,
            from,
            known,
            told,
            mistakes,
        } = self;
        let words: Vec<String> = told.iter().map(|key| format!("`{key}`")).collect();
        for key in from.keys().filter(|key| !known.contains(&key.as_str())) {
            let at = path_of(&path, key);
            mistakes.push(
                ConfigError::error(&at, format!("unknown key `{at}`"))
                    .with_help(format!("known are {}", words.join(", "))),
            );
        }
    }
}

pub(super) fn path_of(path: &str, key: &str) -> String {
    match key {
        "" => path.to_owned(),
        key => format!("{path}.{key}"),
    }
}

fn seconds(value: &Value, unit: u64) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }?;
    let millis = number * unit as f64;
    // Above the bound of every span, and far below where a float loses whole
    // numbers.
    (0.0..1e12).contains(&millis).then_some(millis as u64)
}
