//! Options whose values are secrets, and how a statement may speak of them: by the name of a variable, `'${NAME}'`.
//!
//! Invariant: a statement that is kept, shown or logged holds names of variables, never what they stand for. So a secret
//! in `WITH` is left as `${NAME}` when a text's variables are replaced, and is looked up when a store is opened.

/// Parts of names by which an option is known to hold a secret. The id of an access key is no secret by itself; it is
/// treated as its other half.
const SECRET: [&str; 14] = [
    "access_key",
    "account_key",
    "bearer",
    "customer_key",
    "encryption_key",
    "key.pem",
    "master_key",
    "oauthbearer.config",
    "passphrase",
    "password",
    "sas_key",
    "secret",
    "service_account_key",
    "token",
];

/// Ends of names that say where a secret is kept, not what it is.
const PLACES: [&str; 5] = ["_file", "_path", "_url", "_host", "_endpoint"];

/// Whether an option's value is a secret, by its name.
///
/// ```
/// use watershed_core::secrets::is_secret;
///
/// assert!(is_secret("aws_secret_access_key") && is_secret("sas_token"));
/// assert!(!is_secret("endpoint") && !is_secret("web_identity_token_file"));
/// ```
pub fn is_secret(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    SECRET.iter().any(|part| option.contains(part)) && !PLACES.iter().any(|end| option.ends_with(end))
}

/// The variable's name, of a value that is `${NAME}` and nothing else.
///
/// ```
/// use watershed_core::secrets::variable;
///
/// assert_eq!(variable("${LAKE_KEY}"), Some("LAKE_KEY"));
/// assert_eq!(variable("x${LAKE_KEY}"), None);
/// ```
pub fn variable(value: &str) -> Option<&str> {
    let name = value.strip_prefix("${")?.strip_suffix('}')?;
    let well_formed = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    well_formed.then_some(name)
}
