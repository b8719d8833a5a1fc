//! `gs://bucket/path`: Google Cloud Storage.
//!
//! Credentials, the first there are: store options (`service_account`, a file; `service_account_key`, its content);
//! `GOOGLE_…` in the environment; `application_default_credentials.json` of gcloud; the instance's metadata service.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use watershed_core::{Error, Result};

use super::options::{Options, environment};

pub(crate) fn build(bucket: &str, options: &Options) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket).with_retry(options.retry()?);
    for (key, value) in environment::<GoogleConfigKey>("GOOGLE_") {
        builder = builder.with_config(key, value);
    }
    for (key, value) in options.of::<GoogleConfigKey>() {
        builder = builder.with_config(key, value);
    }
    let store = builder.build().map_err(|e| Error::input(format!("cannot open bucket `{bucket}`: {e}")))?;
    Ok(Arc::new(store))
}
