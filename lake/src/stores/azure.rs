//! `az://container/path`, `abfss://container@account.dfs.core.windows.net/path` and their kin: Azure Blob Storage.
//!
//! Credentials, the first there are: store options (`account_key`, `sas_key`, `client_id` with `client_secret` and
//! `tenant_id`, …); `AZURE_…` in the environment; the instance's metadata service. The account is part of the URL, or the
//! option `account_name`.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use watershed_core::{Error, Result};

use super::options::{Options, environment};

/// `root` is the location's scheme and authority.
pub(crate) fn build(root: &str, options: &Options) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new().with_url(root).with_retry(options.retry()?);
    for (key, value) in environment::<AzureConfigKey>("AZURE_") {
        builder = builder.with_config(key, value);
    }
    for (key, value) in options.of::<AzureConfigKey>() {
        builder = builder.with_config(key, value);
    }
    let no_account = builder.get_config_value(&AzureConfigKey::AccountName).is_none() && !root.contains('@');
    let emulator = builder.get_config_value(&AzureConfigKey::UseEmulator).as_deref() == Some("true");
    let store = builder.build().map_err(|e| match no_account && !emulator {
        true => Error::input(format!(
            "cannot open `{root}`: it names no storage account: give the store option account_name=… \
             (AZURE_STORAGE_ACCOUNT_NAME), or write abfss://container@account.dfs.core.windows.net/path"
        )),
        false => Error::input(format!("cannot open `{root}`: {e}")),
    })?;
    Ok(Arc::new(store))
}
