//! The file as it is written: tables, keys and values with their places, nothing interpreted.
//!
//! Every table is opened with the list of its known keys, so an unknown key is a fault with its
//! place and the nearest known key. Faults are collected, never returned early: the operator sees
//! all of them at once. Derived deserialisation stops at the first fault, so it is not used.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use xxhash_rust::xxh3::Xxh3;

use self::keys::{keys_of, nearest, unknown_key_remedy};
use super::parse::fault::{Fault, position, shown};

pub(super) mod keys;

/// Keys whose values are secrets, wherever they appear; so is all of `alerts` and `traces`. Where a hash belongs, a
/// key may stand by mistake.
const SECRET_KEYS: [&str; 3] = ["api-key", "token", "key-hash"];

/// A place in the document.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// As `rollout.guards.error-rate`.
    pub(super) path: String,
    /// Bytes of the file.
    pub(super) span: Range<usize>,
}

/// A value that cannot be used, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) problem: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// One value with its place.
#[derive(Debug, Clone)]
pub(super) struct Field<'d> {
    pub(super) value: &'d DeValue<'d>,
    pub(super) place: Place,
}

/// Reads one file: collects what is wrong, looks up secrets, and hashes all that was read.
pub(super) struct Reader<'t> {
    text: &'t str,
    pub(super) env: &'t dyn Fn(&str) -> Option<String>,
    /// Of the text and of every secret that was looked up.
    pub(super) hash: Xxh3,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str, env: &'t dyn Fn(&str) -> Option<String>) -> Self {
        let mut hash = Xxh3::new();
        hash.update(text.as_bytes());
        Self {
            text,
            env,
            hash,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The document, or one fault for the first syntax error.
    pub(super) fn document(&mut self) -> Option<Spanned<DeTable<'t>>> {
        match DeTable::parse(self.text) {
            Ok(document) => Some(document),
            Err(error) => {
                let place = Place {
                    path: String::new(),
                    span: error.span().unwrap_or(0..0),
                };
                let problem = format!("this is not TOML: {}", error.message());
                let remedy = "texts, durations, shares and sizes stand in quotes";
                self.fault(&place, Wrong::new(problem, remedy));
                None
            }
        }
    }

    /// Notes that the file cannot be used.
    pub(super) fn fault(&mut self, place: &Place, wrong: Wrong) {
        let fault = self.at(place, wrong, false);
        self.faults.push(fault);
    }

    /// Notes that the file can be used but is unwise.
    pub(super) fn warn(&mut self, place: &Place, problem: &str, remedy: &str) {
        let fault = self.at(place, Wrong::new(problem, remedy), false);
        self.warnings.push(fault);
    }

    fn at(&self, place: &Place, wrong: Wrong, secret: bool) -> Fault {
        let (line, column) = position(self.text, place.span.start);
        let last = place.path.rsplit('.').next().unwrap_or_default();
        let secret = secret
            || SECRET_KEYS.contains(&last)
            || place.path.starts_with("alerts")
            || place.path.starts_with("traces");
        let source = self.text.lines().nth(line - 1).unwrap_or_default();
        Fault {
            line,
            column,
            path: place.path.clone(),
            problem: wrong.problem,
            remedy: wrong.remedy,
            source: shown(source, secret),
        }
    }

    /// The value of `key`, read by `read`. `None` if it is absent or wrong (which is then noted).
    pub(super) fn read<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        read: impl FnOnce(&Field<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let field = section.get(key)?;
        self.take(&field, read)
    }

    /// The value of `field`, read by `read`. `None` if it is wrong, which is then noted.
    pub(super) fn take<T>(
        &mut self,
        field: &Field<'_>,
        read: impl FnOnce(&Field<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        match read(field) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.fault(&field.place, wrong);
                None
            }
        }
    }

    /// The table that `key` names, with its keys checked against `TABLES[name]`; empty if absent or wrong.
    pub(super) fn section<'d>(
        &mut self,
        parent: &Section<'d>,
        key: &str,
        name: &str,
    ) -> Section<'d> {
        match parent.get(key) {
            Some(field) => self.open(&field, name),
            None => Section::absent(parent.place_of(key)),
        }
    }

    /// The same for a value at hand.
    pub(super) fn open<'d>(&mut self, field: &Field<'d>, name: &str) -> Section<'d> {
        if !field.value.is_table() {
            self.fault(&field.place, field.expected("a table"));
        }
        let section = Section::of_table(field);
        self.check_keys(&section, name);
        section
    }

    /// Notes every key of `section` that `TABLES[name]` does not know.
    pub(super) fn check_keys(&mut self, section: &Section<'_>, name: &str) {
        let known = keys_of(name);
        self.check_keys_against(section, known);
    }

    /// Notes every key of `section` that is not among `known`.
    pub(super) fn check_keys_against(&mut self, section: &Section<'_>, known: &[&str]) {
        for (key, _) in section.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let place = Place {
                path: join(&section.place.path, name),
                span: key.span(),
            };
            let nearest = nearest(name, known);
            let remedy = unknown_key_remedy(name, nearest, known);
            let secret = nearest.is_some_and(|key| SECRET_KEYS.contains(&key));
            let fault = self.at(&place, Wrong::new("unknown key", remedy), secret);
            self.faults.push(fault);
        }
    }
}

/// A table of the file, or the place where it is missing.
#[derive(Debug, Clone)]
pub(super) struct Section<'d> {
    table: Option<&'d DeTable<'d>>,
    pub(super) place: Place,
}

impl<'d> Section<'d> {
    /// The whole document.
    pub(super) fn root(document: &'d Spanned<DeTable<'d>>) -> Self {
        Self {
            table: Some(document.get_ref()),
            place: Place {
                path: String::new(),
                span: 0..0,
            },
        }
    }

    /// A table that is not written; `place` is where it would be.
    pub(super) fn absent(place: Place) -> Self {
        Self { table: None, place }
    }

    /// The table that `field` holds, its keys unchecked; empty if it holds none.
    pub(super) fn of_table(field: &Field<'d>) -> Self {
        Self {
            table: field.value.as_table(),
            place: field.place.clone(),
        }
    }

    /// The place of the value at `path`, if it is written.
    pub(super) fn find(&self, path: &[&str]) -> Option<Place> {
        let (last, tables) = path.split_last()?;
        let mut section = self.clone();
        for table in tables {
            section = Self::of_table(&section.get(table)?);
        }
        section.get(last).map(|field| field.place)
    }

    /// The value of `key` if it is written.
    pub(super) fn get(&self, key: &str) -> Option<Field<'d>> {
        let value = self.table?.get(key)?;
        Some(Field {
            value: value.get_ref(),
            place: Place {
                path: join(&self.place.path, key),
                span: value.span(),
            },
        })
    }

    /// Every entry: key and value.
    pub(super) fn entries(&self) -> Vec<(&'d str, Field<'d>)> {
        let entries = self.table.into_iter().flatten().map(|(key, value)| {
            let name: &str = key.get_ref();
            let place = Place {
                path: join(&self.place.path, name),
                span: value.span(),
            };
            let value = value.get_ref();
            (name, Field { value, place })
        });
        entries.collect()
    }

    /// The place of `key`: its value's, else the table's.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.get(key).map_or_else(
            || Place {
                path: join(&self.place.path, key),
                span: self.place.span.clone(),
            },
            |field| field.place,
        )
    }
}

impl<'d> Field<'d> {
    /// What to say of a value of the wrong type.
    pub(super) fn expected(&self, what: &str) -> Wrong {
        let found = self.value.type_str();
        let article = if matches!(found, "integer" | "array") {
            "an"
        } else {
            "a"
        };
        Wrong::new(
            format!("{article} {found} where {what} is expected"),
            format!("write {what}"),
        )
    }

    /// The elements of an array; `None` if it is none.
    pub(super) fn elements(&self) -> Option<Vec<Field<'d>>> {
        let array = self.value.as_array()?;
        let elements = array.iter().enumerate().map(|(index, value)| Field {
            value: value.get_ref(),
            place: Place {
                path: format!("{}[{index}]", self.place.path),
                span: value.span(),
            },
        });
        Some(elements.collect())
    }
}

/// `parent.key`, quoted where TOML would need it.
fn join(parent: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let key = if bare {
        key.to_owned()
    } else {
        format!("\"{}\"", key.escape_debug())
    };
    if parent.is_empty() {
        key
    } else {
        format!("{parent}.{key}")
    }
}
