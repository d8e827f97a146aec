//! Statements that insert many rows, in a few shapes, so that SQLite reads the text of each only once.
//!
//! To read a statement of many rows takes longer than to run it; one row per statement costs a message to
//! SQLite's thread each. So rows go in chunks of [`SHAPES`], from the largest on. Decides nothing.

use std::sync::OnceLock;

use sqlx::encode::Encode;
use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, SqlStr, Sqlite, SqliteConnection, Type};

/// Rows in one statement. The largest has 256 x 22 values, far below SQLite's bound of 32,766.
const SHAPES: [usize; 5] = [256, 64, 16, 4, 1];

/// An insertion into one table.
pub(super) struct Insert {
    table: &'static str,
    /// Their names, separated by commas.
    columns: String,
    /// What follows the rows: `ON CONFLICT ...`, or nothing.
    then: String,
    texts: [OnceLock<String>; SHAPES.len()],
}

/// The values of some rows, in the order of the columns.
pub(super) struct Values {
    arguments: SqliteArguments,
    error: Option<BoxDynError>,
}

impl Values {
    /// Adds a value. Texts are cheapest as `Arc<str>`.
    pub(super) fn push_bind<'t>(
        &mut self,
        value: impl Encode<'t, Sqlite> + Type<Sqlite>,
    ) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.error.get_or_insert(error);
        }
        self
    }
}

impl Insert {
    pub(super) fn new(
        table: &'static str,
        columns: impl Into<String>,
        then: impl Into<String>,
    ) -> Self {
        Self {
            table,
            columns: columns.into(),
            then: then.into(),
            texts: Default::default(),
        }
    }

    fn width(&self) -> usize {
        self.columns.split(',').count()
    }

    fn text(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.width()].join(","));
        let rows = vec![row; rows].join(",");
        let (table, columns, then) = (self.table, &self.columns, &self.then);
        format!("INSERT INTO {table} ({columns}) VALUES {rows} {then}")
    }

    /// Inserts all rows; `push` adds the values of one.
    pub(super) async fn run<T>(
        &'static self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        mut push: impl FnMut(&mut Values, &T),
    ) -> Result<(), sqlx::Error> {
        for (shape, text) in SHAPES.into_iter().zip(&self.texts) {
            while let Some((chunk, rest)) = rows.split_at_checked(shape) {
                rows = rest;
                let mut values = Values {
                    arguments: SqliteArguments::default(),
                    error: None,
                };
                values.arguments.reserve(shape * self.width(), 0);
                for row in chunk {
                    push(&mut values, row);
                }
                if let Some(error) = values.error {
                    return Err(sqlx::Error::Encode(error));
                }
                let text = SqlStr::from_static(text.get_or_init(|| self.text(shape)));
                sqlx::query_with(text, values.arguments)
                    .execute(&mut *connection)
                    .await?;
            }
        }
        Ok(())
    }
}
