//! A proxy before a server, that answers some requests itself: `503 SlowDown`, as S3 does when it is asked too much.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
                         <Message>Please reduce your request rate.</Message></Error>";

/// Ends with the runtime that it was started on.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    asked: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Proxy {
    /// Refuses every `nth` request, and passes the others on to the port.
    pub(crate) async fn start(port: u16, nth: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, refused): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let proxy = Proxy { endpoint, asked: asked.clone(), refused: refused.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (asked, refused) = (asked.clone(), refused.clone());
                tokio::spawn(async move {
                    // A client that hangs up is its own affair.
                    let _ = one_request(client, port, nth, &asked, &refused).await;
                });
            }
        });
        proxy
    }

    /// Requests that came, and those of them that were refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.asked.load(Ordering::SeqCst), self.refused.load(Ordering::SeqCst))
    }
}

/// One request a connection, and both ends are told so.
async fn one_request(
    mut client: TcpStream,
    port: u16,
    nth: u64,
    asked: &AtomicU64,
    refused: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = vec![];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut body = bytes.split_off(head + 4);
    let length = text.lines().filter_map(|line| line.split_once(':'));
    let length = length.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.trim().parse().unwrap());
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(());
        }
    }
    if (asked.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(nth) {
        refused.fetch_add(1, Ordering::SeqCst);
        let answer = format!(
            "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{SLOW_DOWN}",
            SLOW_DOWN.len()
        );
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server.write_all(format!("{text}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    server.write_all(&body).await?;
    let mut answer = vec![];
    server.read_to_end(&mut answer).await?;
    // What the client would otherwise keep the connection for.
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
    client.write_all(&answer[..end]).await?;
    if !String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase().contains("\r\nconnection: close") {
        client.write_all(b"\r\nConnection: close").await?;
    }
    client.write_all(&answer[end..]).await?;
    client.shutdown().await
}
