//! `s3://bucket/path`, `s3a://bucket/path`: Amazon S3, MinIO and others that speak its protocol.
//!
//! Credentials, the first there are: store options, `profile` among them; `AWS_…` in the environment; what
//! [`profiles`](super::profiles) finds. Region and endpoint likewise. Nobody is asked over the network before the first
//! request is made, and not at all by those who have keys.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, S3ConditionalPut};
use watershed_core::{Error, Result};

use super::options::{Options, environment};
use super::profiles;

const CREDENTIALS: [Key; 3] = [Key::AccessKeyId, Key::SecretAccessKey, Key::Token];

/// Ways to credentials that object_store knows itself, where an option asks for them by name.
const ITS_OWN: [Key; 3] =
    [Key::WebIdentityTokenFile, Key::ContainerCredentialsRelativeUri, Key::ContainerCredentialsFullUri];

pub(crate) fn build(bucket: &str, options: &Options) -> Result<Arc<dyn ObjectStore>> {
    let bad = |e: &dyn std::fmt::Display| Error::input(format!("cannot open bucket `{bucket}`: {e}"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(options.retry()?);
    for (key, value) in environment::<Key>("AWS_") {
        // A profile that was asked for by name counts before keys that are simply there.
        if options.profile().is_none() || !CREDENTIALS.contains(&key) {
            builder = builder.with_config(key, value);
        }
    }
    let mut own_way = false;
    for (key, value) in options.of::<Key>() {
        own_way |= ITS_OWN.contains(&key);
        builder = builder.with_config(key, value);
    }
    let has = |builder: &AmazonS3Builder, key: Key| builder.get_config_value(&key).is_some_and(|v| !v.is_empty());
    let keys = has(&builder, Key::AccessKeyId) || has(&builder, Key::SecretAccessKey);
    let unsigned = builder.get_config_value(&Key::SkipSignature).as_deref() == Some("true");
    let region = builder.get_config_value(&Key::Region);
    let profile = profiles::load(options.profile(), region.clone()).map_err(|e| bad(&e))?;
    if let (None, Some(region)) = (region, profile.region) {
        builder = builder.with_region(region);
    }
    if !has(&builder, Key::Endpoint) && !has(&builder, Key::S3Endpoint) {
        builder = profile.endpoint.into_iter().fold(builder, |b, endpoint| b.with_endpoint(endpoint));
    }
    if !keys && !unsigned && !own_way {
        builder = profile.credentials.into_iter().fold(builder, |b, found| b.with_credentials(found));
    }
    without_tls(&builder).map_err(|e| bad(&e))?;
    Ok(Arc::new(builder.build().map_err(|e| bad(&e))?))
}

/// object_store would refuse each request, in words that do not say what to do.
fn without_tls(builder: &AmazonS3Builder) -> Result<(), String> {
    let allowed = Key::Client(object_store::ClientConfigKey::AllowHttp);
    let allowed = builder.get_config_value(&allowed).as_deref() == Some("true");
    let endpoint = [Key::S3Endpoint, Key::Endpoint].iter().find_map(|key| builder.get_config_value(key));
    match endpoint.filter(|endpoint| endpoint.starts_with("http://") && !allowed) {
        Some(endpoint) => Err(format!(
            "endpoint {endpoint} has no TLS: give the store option allow_http=true (AWS_ALLOW_HTTP=true) if that is meant"
        )),
        None => Ok(()),
    }
}
