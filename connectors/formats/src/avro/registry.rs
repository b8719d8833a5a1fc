//! Asks a [schema registry](https://docs.confluent.io/platform/current/schema-registry/develop/api.html) for schemas by id.
//!
//! A request is made once for an id, so it has a thread and a runtime of its own: decoding happens where nothing can be
//! awaited, and with or without a runtime around it.
//!
//! Invariant: that a schema is not there is said by the registry itself. Any other answer is an error, and asks again first
//! where that may help.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde_json::Value;
use watershed_core::{Error, Result};

use crate::options::{AVRO_REGISTRY, AVRO_REGISTRY_PASSWORD, AVRO_REGISTRY_USER, Options};

pub(crate) struct Registry {
    /// Without a slash at its end, and without secrets.
    url: String,
    user: Option<(String, String)>,
}

/// What a registry has for an id.
#[derive(Debug)]
pub(crate) enum Found {
    /// An Avro schema, as JSON.
    Schema(String),
    /// None, or none that we can read, and why.
    Unusable(String),
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Before it is asked again.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// The registry's own number for a schema that it does not have; a wrong address may say 404, too.
const NO_SCHEMA: i64 = 40403;

/// What one request came to.
enum Answer {
    Found(Found),
    Failed { error: Error, again: bool },
}

impl Registry {
    /// `None`: no option speaks of one.
    pub(crate) fn of(options: &Options<'_>) -> Result<Option<Self>> {
        let user = options.secret(AVRO_REGISTRY_USER)?;
        let password = options.secret(AVRO_REGISTRY_PASSWORD)?;
        let Some(given) = options.get(AVRO_REGISTRY) else {
            if user.is_some() || password.is_some() {
                return Err(Error::input(format!("{AVRO_REGISTRY_USER} and its password need {AVRO_REGISTRY}")));
            }
            return Ok(None);
        };
        let url = Url::parse(given).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        // What was given is not repeated: it may hold a password.
        let url =
            url.ok_or_else(|| Error::input(format!("option {AVRO_REGISTRY}: give a URL, such as 'http://host:8081'")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::input(format!(
                "option {AVRO_REGISTRY}: give {AVRO_REGISTRY_USER} and {AVRO_REGISTRY_PASSWORD} = '${{NAME}}' rather than \
                 a password in the URL"
            )));
        }
        let user = match (user, password) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            _ => {
                return Err(Error::input(format!(
                    "give {AVRO_REGISTRY_USER} and {AVRO_REGISTRY_PASSWORD}, or neither"
                )));
            }
        };
        Ok(Some(Registry { url: url.as_str().trim_end_matches('/').to_string(), user }))
    }

    pub(crate) fn schema(&self, id: u32) -> Result<Found> {
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|e| Error::bug(format!("a runtime for a schema registry: {e}")))?;
                runtime.block_on(self.ask(id))
            });
            asking.join().unwrap_or_else(|_| Err(Error::bug("asking a schema registry panicked")))
        })
    }

    async fn ask(&self, id: u32) -> Result<Found> {
        let mut pauses = PAUSES.into_iter();
        loop {
            match self.once(id).await {
                Answer::Found(found) => return Ok(found),
                Answer::Failed { error, again } => match pauses.next().filter(|_| again) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(error),
                },
            }
        }
    }

    async fn once(&self, id: u32) -> Answer {
        let failed = |source: String, again| {
            let what = format!("ask for schema {id} of the schema registry");
            Answer::Failed { error: Error::storage(what, self.url.as_str(), source), again }
        };
        let client = match reqwest::Client::builder().timeout(PATIENCE).build() {
            Ok(client) => client,
            Err(e) => return failed(causes(&e), false),
        };
        let mut request = client.get(format!("{}/schemas/ids/{id}", self.url));
        if let Some((user, password)) = &self.user {
            request = request.basic_auth(user, Some(password));
        }
        let unreachable = |e: reqwest::Error| {
            failed(format!("{}; see that it runs there, or correct {AVRO_REGISTRY}", causes(&e.without_url())), true)
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return unreachable(e),
        };
        let status = response.status();
        let body = match response.text().await {
            Ok(body) => body,
            Err(e) => return unreachable(e),
        };
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        match status {
            StatusCode::OK => match found(&answer) {
                Some(found) => Answer::Found(found),
                None => {
                    failed(format!("the answer has no schema; see that {AVRO_REGISTRY} is a schema registry"), false)
                }
            },
            StatusCode::NOT_FOUND if answer["error_code"] == NO_SCHEMA => {
                Answer::Found(Found::Unusable(format!("the schema registry {} does not have it", self.url)))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let login = format!("{AVRO_REGISTRY_USER} and {AVRO_REGISTRY_PASSWORD}");
                failed(format!("it answered {status}; give {login} of one who may read it"), false)
            }
            _ => {
                let again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                failed(format!("it answered {status}; see that {AVRO_REGISTRY} is a schema registry, and well"), again)
            }
        }
    }
}

fn found(answer: &Value) -> Option<Found> {
    let schema = answer["schema"].as_str()?;
    Some(match answer["schemaType"].as_str() {
        Some(other) if other != "AVRO" => Found::Unusable(format!("it is a schema of {other}")),
        _ if answer["references"].as_array().is_some_and(|references| !references.is_empty()) => {
            Found::Unusable("it refers to other schemas, which is not supported yet".into())
        }
        _ => Found::Schema(schema.to_string()),
    })
}

/// An error with what caused it: reqwest's own says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
