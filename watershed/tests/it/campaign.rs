//! How long random tests go on, and what they draw from: briefly and the same each time, unless a campaign (`make chaos`) or
//! somebody who repeats a failure says otherwise.

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// About how often something is killed or made to fail.
pub(crate) fn chaos() -> u64 {
    number("WATERSHED_CHAOS").unwrap_or(200)
}

/// What a test draws from, which it says.
pub(crate) fn seed(usual: u64) -> u64 {
    let seed = number("WATERSHED_SEED").unwrap_or(usual);
    println!("WATERSHED_SEED={seed}");
    seed
}
