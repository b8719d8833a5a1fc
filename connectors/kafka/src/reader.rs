//! A topic being read, as its reader sees it: the end of a channel, with a thread behind it.
//!
//! Invariant: the thread ends when its reader is dropped, and whatever ends it first is told to the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, Thread};

use async_trait::async_trait;
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;
use watershed_core::tail::{Fetched, Messages, Part, TailReader};
use watershed_core::{Error, Result};

use crate::ask::Asker;
use crate::events::Events;
use crate::fetch::{Fetch, Order};
use crate::trouble::joined;

/// Batches that wait for the reader.
const AHEAD: usize = 4;

pub(crate) struct KafkaReader {
    asker: Arc<Asker>,
    orders: Sender<Order>,
    thread: Thread,
    batches: Receiver<Result<Vec<Messages>>>,
    over: bool,
}

impl KafkaReader {
    /// Begins to read. Waits for brokers: call it where waiting is allowed.
    pub(crate) fn start(asker: Arc<Asker>, from: BTreeMap<Part, i64>, with_headers: bool) -> Result<KafkaReader> {
        asker.check(&from)?;
        let config = asker.options.reading(from.len());
        let client = config.create_with_context(Events::new(&asker.location));
        let client = client.map_err(|e| asker.options.refused(&e))?;
        let (orders, to_obey) = mpsc::channel();
        let (to_send, batches) = tokio::sync::mpsc::channel(AHEAD);
        let fetch = Fetch::new(client, Arc::clone(&asker), to_obey, to_send, with_headers);
        let thread = thread::Builder::new().name(format!("kafka {}", asker.location.topic));
        let thread = thread.spawn(move || fetch.run(&from));
        let thread = thread.map_err(|e| Error::Resources(format!("cannot start a thread to read Kafka: {e}")))?;
        Ok(KafkaReader { thread: thread.thread().clone(), asker, orders, batches, over: false })
    }

    /// A thread that is gone says so by `next`.
    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        self.thread.unpark();
    }
}

#[async_trait]
impl TailReader for KafkaReader {
    async fn next(&mut self) -> Result<Vec<Fetched>> {
        let next = self.batches.recv().await;
        if self.batches.is_empty() {
            // It may hold back a batch that was not waited for.
            self.thread.unpark();
        }
        match next {
            Some(Ok(batches)) => Ok(batches.into_iter().map(Fetched::from).collect()),
            Some(Err(e)) => {
                self.over = true;
                Err(e)
            }
            None if self.over => Err(Error::stopped(format!("`{}` is not read any more", self.asker.location.text))),
            None => {
                Err(Error::bug(format!("the thread that reads `{}` ended without a word", self.asker.location.text)))
            }
        }
    }

    async fn hold(&mut self, parts: &BTreeSet<Part>) -> Result<()> {
        self.order(Order::Hold(parts.clone()));
        Ok(())
    }

    async fn add(&mut self, from: &BTreeMap<Part, i64>) -> Result<()> {
        let (asker, checked) = (Arc::clone(&self.asker), from.clone());
        joined(spawn_blocking(move || asker.check(&checked)).await)?;
        self.order(Order::Add(from.clone()));
        Ok(())
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.batches.close();
        self.thread.unpark();
    }
}
