//! How a table is partitioned, as users write it: `region`, `day(ts)`, `hour(ts)`.

use std::fmt;

use watershed_core::{Error, Result};

/// One partition column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionBy {
    /// A column of the rows.
    Column(String),
    /// A DATE column `{column}_day`, the UTC day of a timestamp.
    Day(String),
    /// A TIMESTAMP column `{column}_hour`, the UTC hour of a timestamp.
    Hour(String),
}

impl PartitionBy {
    /// Parses a list such as `day(ts), region`.
    pub fn parse(text: &str) -> Result<Vec<PartitionBy>> {
        let mut parsed: Vec<PartitionBy> = vec![];
        for item in text.split(',').map(str::trim) {
            let fail = || {
                Error::input(format!(
                    "cannot read `{item}` in partition_by = '{text}': give columns, day(column) or hour(column), \
                     separated by commas"
                ))
            };
            let plain = |name: &str| Some(name.trim().to_string()).filter(|n| !n.is_empty() && !n.contains(['(', ')']));
            let one = match item.split_once('(') {
                None => PartitionBy::Column(plain(item).ok_or_else(fail)?),
                Some((function, rest)) => {
                    let column = rest.strip_suffix(')').and_then(plain).ok_or_else(fail)?;
                    match function.trim().to_ascii_lowercase().as_str() {
                        "day" => PartitionBy::Day(column),
                        "hour" => PartitionBy::Hour(column),
                        _ => return Err(fail()),
                    }
                }
            };
            if parsed.iter().any(|p| p.column_name() == one.column_name()) {
                return Err(Error::input(format!("partition_by = '{text}' names `{}` twice", one.column_name())));
            }
            parsed.push(one);
        }
        Ok(parsed)
    }

    /// The partition column's name.
    pub fn column_name(&self) -> String {
        match self {
            PartitionBy::Column(column) => column.clone(),
            PartitionBy::Day(column) => format!("{column}_day"),
            PartitionBy::Hour(column) => format!("{column}_hour"),
        }
    }
}

impl fmt::Display for PartitionBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartitionBy::Column(column) => f.write_str(column),
            PartitionBy::Day(column) => write!(f, "day({column})"),
            PartitionBy::Hour(column) => write!(f, "hour({column})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_lists() {
        let parsed = PartitionBy::parse("Day( ts ), region,hour(at)").unwrap();
        assert_eq!(parsed.iter().map(|p| p.to_string()).collect::<Vec<_>>(), ["day(ts)", "region", "hour(at)"]);
        assert_eq!(parsed.iter().map(PartitionBy::column_name).collect::<Vec<_>>(), ["ts_day", "region", "at_hour"]);
        for bad in ["", "day(ts", "month(ts)", "a,,b", "day()", "a, a"] {
            assert!(PartitionBy::parse(bad).is_err(), "{bad}");
        }
    }
}
