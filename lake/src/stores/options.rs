//! What a user says about stores: object_store's configuration keys, and a few of ours, by name.
//!
//! | option | |
//! |---|---|
//! | `max_retries` | how often a request is tried again; 20 |
//! | `retry_timeout` | how long after its first attempt, at most; a minute |
//! | `profile` | the profile of `~/.aws` to take credentials, region and endpoint from, before the environment |
//! | all others | `AmazonS3ConfigKey`, `GoogleConfigKey`, `AzureConfigKey`, `ClientConfigKey`, with or without their prefix |
//!
//! A name that means something to one kind of store is no error for another: options given for everything reach each
//! store that heeds them.
//!
//! Invariant: a value that is `${NAME}` is looked up here, when a store is opened, and its meaning goes into the store and
//! nowhere else.

// What the stores of an absent feature would use.
#![cfg_attr(not(all(feature = "aws", feature = "azure", feature = "gcp")), allow(dead_code, unused_imports))]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};
use watershed_core::secrets::{is_secret, variable};
use watershed_core::settings::parse_span;
use watershed_core::{Error, Result};

pub(crate) const MAX_RETRIES: &str = "max_retries";
pub(crate) const RETRY_TIMEOUT: &str = "retry_timeout";
const PROFILES: [&str; 2] = ["profile", "aws_profile"];

/// Of a request: it is neither signed anew nor given other credentials when it is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(5 * 60);
const MOST_RETRIES: usize = 1000;

/// Enough for a server that is started anew, and not so long that a wrong endpoint looks like a run that hangs.
const RETRIES: usize = 20;
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Pauses are drawn between the first and `base` times the one before. object_store's own base of two makes them grow so slowly
/// that ten of them are over in two seconds.
fn pauses() -> BackoffConfig {
    BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(10), base: 3.0 }
}

/// Names and values, `${NAME}` looked up.
#[derive(Clone, Default)]
pub(crate) struct Options {
    values: BTreeMap<String, String>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Options {
    /// Takes what was given, refusing names that mean nothing to any store.
    pub(crate) fn new(given: &BTreeMap<String, String>, variables: &BTreeMap<String, String>) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (name, value) in given {
            let name = name.to_ascii_lowercase();
            if !is_option(&name) {
                return Err(Error::input(format!(
                    "unknown store option `{name}`; there are endpoint, region, allow_http, profile, max_retries, \
                     retry_timeout, access_key_id, secret_access_key, session_token and object_store's other \
                     configuration keys{}",
                    super::without()
                )));
            }
            let value = match variable(value) {
                None => value.clone(),
                Some(variable) => variables.get(variable).cloned().ok_or_else(|| {
                    Error::input(format!(
                        "store option `{name}`: ${{{variable}}} is not set: give it with --var {variable}=… or in the environment"
                    ))
                })?,
            };
            values.insert(name, value);
        }
        Ok(Options { values })
    }

    /// The options that mean something to a kind of store, as its keys.
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    pub(crate) fn of<K: FromStr>(&self) -> impl Iterator<Item = (K, &String)> {
        self.values.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value)))
    }

    #[cfg(feature = "aws")]
    pub(crate) fn profile(&self) -> Option<&str> {
        PROFILES.iter().find_map(|name| self.values.get(*name)).map(String::as_str)
    }

    /// How requests are tried again. Always bounded.
    pub(crate) fn retry(&self) -> Result<RetryConfig> {
        let mut retry = RetryConfig { backoff: pauses(), max_retries: RETRIES, retry_timeout: RETRY_FOR };
        let of = |name| self.values.get(name);
        if let Some(text) = of(MAX_RETRIES) {
            let number = text.parse().ok().filter(|n| *n <= MOST_RETRIES);
            retry.max_retries = number.ok_or_else(|| {
                Error::input(format!("store option {MAX_RETRIES} = '{text}': give a number from 0 to {MOST_RETRIES}"))
            })?;
        }
        if let Some(text) = of(RETRY_TIMEOUT) {
            let span = parse_span(text).and_then(|span| u64::try_from(span.0).ok()).map(Duration::from_micros);
            retry.retry_timeout = span.filter(|span| *span <= LONGEST_RETRY).ok_or_else(|| {
                Error::input(format!(
                    "store option {RETRY_TIMEOUT} = '{text}': give a duration such as '30 s', 5 minutes at most, since a \
                     request is not signed anew while it is tried"
                ))
            })?;
        }
        Ok(retry)
    }

    /// Values that no message may hold.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.values.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone()).collect()
    }
}

/// Variables of the environment with this prefix that mean something to a kind of store, as its keys.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
pub(crate) fn environment<K: FromStr>(prefix: &str) -> Vec<(K, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let named = std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with(prefix));
    named.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value))).collect()
}

/// Whether an option of this name means something to a store that this build can open.
pub fn is_option(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    #[cfg(feature = "aws")]
    if name.parse::<object_store::aws::AmazonS3ConfigKey>().is_ok() || PROFILES.contains(&name.as_str()) {
        return true;
    }
    #[cfg(feature = "gcp")]
    if name.parse::<object_store::gcp::GoogleConfigKey>().is_ok() {
        return true;
    }
    #[cfg(feature = "azure")]
    if name.parse::<object_store::azure::AzureConfigKey>().is_ok() {
        return true;
    }
    [MAX_RETRIES, RETRY_TIMEOUT].contains(&name.as_str())
}
