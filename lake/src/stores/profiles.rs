//! Where AWS keeps credentials besides keys in the environment: profiles in `~/.aws` (keys, single sign-on, processes,
//! assumed roles), web identity tokens, containers' and instances' roles; the chain of `aws-config`, in its order.
//!
//! Invariant: [`load`] reads the two files and asks nobody. The chain is walked by the first request that has to be signed, so
//! the instance's metadata service, its last link, is asked only where nothing else is there.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use tokio::sync::Mutex;
use watershed_core::EventTime;
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::time::Span;

/// Credentials are asked for anew when they have less than this to live.
const MARGIN: Span = Span(5 * Span::MINUTE.0);

/// What the files say, and where credentials will come from.
pub(crate) struct Profile {
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) credentials: Option<AwsCredentialProvider>,
}

/// Reads the profile that was named, else that of `AWS_PROFILE`, else `default`; `region` is the one that counts before it.
pub(crate) fn load(named: Option<&str>, region: Option<String>) -> Result<Profile, String> {
    let named = named.map(str::to_string);
    // aws-config reads files asynchronously and our stores are opened without; this is two small files.
    let reading = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| runtime.block_on(read(named, region)))
    });
    match reading.join() {
        Ok(Ok(profile)) => Ok(profile),
        Ok(Err(e)) => Err(format!("could not read ~/.aws: {e}")),
        Err(_) => Err("could not read ~/.aws: the reader panicked".to_string()),
    }
}

async fn read(named: Option<String>, region: Option<String>) -> Profile {
    let mut of_files = ProfileFileRegionProvider::builder();
    let mut config = aws_config::defaults(BehaviorVersion::latest());
    if let Some(name) = &named {
        of_files = of_files.profile_name(name);
        config = config.profile_name(name);
    }
    // Without the metadata service, which the default chain would ask for a region.
    let chain = RegionProviderChain::first_try(region.map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(of_files.build());
    let region = chain.region().await;
    if let Some(name) = &named {
        // The default chain would put keys of the environment before the profile.
        let provider = ProviderConfig::without_region().with_region(region.clone());
        let provider = ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(name).build();
        config = config.credentials_provider(provider);
    }
    let config = config.region(region.clone()).load().await;
    Profile {
        region: region.map(|region| region.to_string()),
        endpoint: config.endpoint_url().map(str::to_string),
        credentials: config.credentials_provider().map(|provider| -> AwsCredentialProvider {
            Arc::new(Chain { provider, named, clock: SystemClock::default(), held: Mutex::default() })
        }),
    }
}

/// The chain, with what it last gave.
struct Chain {
    provider: SharedCredentialsProvider,
    named: Option<String>,
    clock: SystemClock,
    held: Mutex<Option<Held>>,
}

struct Held {
    credential: Arc<AwsCredential>,
    until: Option<EventTime>,
}

/// What to do about credentials that are held.
#[derive(Debug, PartialEq)]
enum Use {
    Held,
    /// Ask for others; those that are held will do if none are to be had.
    AskFirst,
    Ask,
}

fn decide(until: Option<EventTime>, now: EventTime) -> Use {
    match until {
        None => Use::Held,
        Some(until) if now.plus(MARGIN) < until => Use::Held,
        Some(until) if now < until => Use::AskFirst,
        Some(_) => Use::Ask,
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("named", &self.named).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // Held while asking, so that many requests ask once.
        let mut held = self.held.lock().await;
        let used = held.as_ref().map_or(Use::Ask, |held| decide(held.until, self.clock.now()));
        match (used, held.as_ref()) {
            (Use::Held, Some(held)) => return Ok(held.credential.clone()),
            (Use::AskFirst, Some(before)) => match self.ask().await {
                Ok(new) => *held = Some(new),
                Err(e) => {
                    tracing::warn!("AWS credentials will expire soon and could not be renewed yet: {e}");
                    return Ok(before.credential.clone());
                }
            },
            _ => *held = Some(self.ask().await?),
        }
        held.as_ref().map(|held| held.credential.clone()).ok_or_else(|| self.none("nothing was given"))
    }
}

impl Chain {
    async fn ask(&self) -> object_store::Result<Held> {
        let found = self.provider.provide_credentials().await.map_err(|e| self.none(&super::advice::chain(&e)))?;
        Ok(Held {
            credential: Arc::new(AwsCredential {
                key_id: found.access_key_id().to_string(),
                secret_key: found.secret_access_key().to_string(),
                token: found.session_token().map(str::to_string),
            }),
            until: found.expiry().map(event_time),
        })
    }

    fn none(&self, why: &str) -> object_store::Error {
        let why = why.lines().map(str::trim).collect::<Vec<_>>().join("; ");
        let looked = match &self.named {
            Some(name) => format!("profile {name} of ~/.aws gives no credentials"),
            None => "no AWS credentials were found: there are no keys among the store options (access_key_id, \
                     secret_access_key) or in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), and profiles, \
                     web identity, container and instance roles gave none; for a public bucket give skip_signature=true"
                .to_string(),
        };
        object_store::Error::Generic { store: "S3", source: format!("{looked} ({why})").into() }
    }
}

fn event_time(time: SystemTime) -> EventTime {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    EventTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_before_they_expire() {
        let minutes = |n: i64| EventTime(n * Span::MINUTE.0);
        assert_eq!(decide(None, minutes(1_000_000)), Use::Held);
        assert_eq!(decide(Some(minutes(60)), minutes(54)), Use::Held);
        assert_eq!(decide(Some(minutes(60)), minutes(55)), Use::AskFirst);
        assert_eq!(decide(Some(minutes(60)), minutes(60)), Use::Ask);
    }

    /// Gives credentials that live an hour, or none.
    #[derive(Debug)]
    struct Scripted(std::sync::atomic::AtomicU32, std::sync::atomic::AtomicBool);

    impl ProvideCredentials for Scripted {
        fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            use std::sync::atomic::Ordering::SeqCst;
            let n = self.0.fetch_add(1, SeqCst);
            let answer = match self.1.load(SeqCst) {
                true => Ok(aws_credential_types::Credentials::new(format!("key{n}"), "s", None, None, "test")),
                false => Err(aws_credential_types::provider::error::CredentialsError::not_loaded("nothing here")),
            };
            aws_credential_types::provider::future::ProvideCredentials::ready(answer)
        }
    }

    #[tokio::test]
    async fn many_requests_ask_once_and_a_chain_without_end_says_what_to_do() {
        let chain = |gives: bool| Chain {
            provider: SharedCredentialsProvider::new(Scripted(0.into(), gives.into())),
            named: None,
            clock: SystemClock::default(),
            held: Mutex::default(),
        };
        let full = chain(true);
        for _ in 0..3 {
            assert_eq!(full.get_credential().await.unwrap().key_id, "key0");
        }
        assert!(!format!("{full:?}").contains("key0"));
        *full.held.lock().await.as_mut().map(|held| &mut held.until).unwrap() = Some(EventTime(0));
        assert_eq!(full.get_credential().await.unwrap().key_id, "key1", "what has expired is asked for anew");
        let error = chain(false).get_credential().await.unwrap_err().to_string();
        assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("nothing here"), "{error}");
    }
}
