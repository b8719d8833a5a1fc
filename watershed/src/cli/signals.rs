//! Ctrl-C and SIGTERM: the first asks for the next safe point, the second ends the process at once. A checkpoint makes either
//! harmless.
//!
//! They are waited for on a thread of their own, which no amount of work can hold up. It also sees to it that a process that
//! was asked to stop does end: one that has not come to its end after [`LONGEST`] is ended as by a second signal.

use std::time::Duration;

use watershed::runtime::Stop;
use watershed_core::{Error, Result};

/// More than a run's patience and what it takes to leave.
const LONGEST: Duration = Duration::from_secs(18);

/// How a process ends that was ended by a signal, as shells count it: 128 and the signal's number.
const INTERRUPTED: i32 = 130;
#[cfg(unix)]
const TERMINATED: i32 = 143;

/// Turns signals into requests from here on.
pub(crate) fn stop_on_signals(stop: Stop) -> Result<()> {
    let failed = |e: std::io::Error| Error::Resources(format!("could not wait for signals: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::listen().map_err(failed)?
    };
    let wait = move || {
        runtime.block_on(async {
            let code = signals.next().await;
            eprintln!("stopping at the next safe point, which may take some seconds; once more to end at once");
            stop.request();
            let code = tokio::select! {
                code = signals.next() => code,
                () = tokio::time::sleep(LONGEST) => {
                    eprintln!(
                        "no safe point came in {} s: ended; the next run goes on from the last checkpoint",
                        LONGEST.as_secs()
                    );
                    code
                }
            };
            std::process::exit(code);
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    Ok(())
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The exit code that stands for the next signal.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) -> i32 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        INTERRUPTED
    }
}
