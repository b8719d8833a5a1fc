//! A MinIO of the test's own: on loopback, with random credentials, in a temporary folder, gone when the test process is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use watershed_core::clock::{Clock, SystemClock};
use watershed_lake::Stores;

/// Ends the server when its own standard input ends, and that is when whoever holds the pipe is gone, however it went.
const KEEPER: &str = r#"
"$1" server --quiet --address "$2" "$3/data" </dev/null >"$3/log" 2>&1 &
server=$!
read -r line
kill "$server"
wait "$server"
[ "$line" = keep ] || rm -rf "$3"
"#;

/// A server, running or stopped.
pub(crate) struct Server {
    binary: String,
    folder: PathBuf,
    port: u16,
    key: String,
    secret: String,
    keeper: Option<Child>,
}

/// The one server of the test binary; `None` where there is no MinIO.
pub(crate) fn shared() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref()
}

impl Server {
    /// A server that the caller may stop; `None` where there is no MinIO.
    pub(crate) fn start() -> Option<Server> {
        let Some(binary) = std::env::var("WATERSHED_MINIO").ok().filter(|binary| !binary.is_empty()) else {
            println!("skipped: WATERSHED_MINIO names no MinIO server (tools/minio.sh builds it; make test does)");
            return None;
        };
        let id = || SystemClock::default().id().simple().to_string();
        let folder = tempfile::tempdir().unwrap().keep();
        fs::create_dir(folder.join("data")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (key, secret) = (format!("key{}", id()), format!("secret{}", id()));
        let mut server = Server { binary, folder, port, key, secret, keeper: None };
        server.go_on();
        Some(server)
    }

    /// Starts the server, again, where it was.
    pub(crate) fn go_on(&mut self) {
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", &self.binary, &format!("127.0.0.1:{}", self.port)])
            .arg(&self.folder)
            .env("MINIO_ROOT_USER", &self.key)
            .env("MINIO_ROOT_PASSWORD", &self.secret)
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off"), ("MINIO_CI_CD", "1")])
            .stdin(Stdio::piped())
            .spawn();
        self.keeper = Some(keeper.expect("sh starts"));
        for _ in 0..1200 {
            if self.answers() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("MinIO does not answer: {}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
    }

    /// Ends the server; what it holds stays.
    pub(crate) fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            writeln!(keeper.stdin.take().unwrap(), "keep").unwrap();
            keeper.wait().unwrap();
        }
    }

    fn answers(&self) -> bool {
        let mut answer = String::new();
        let asked = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.write_all(b"GET /minio/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        asked.is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The two halves of its credentials.
    pub(crate) fn keys(&self) -> (&str, &str) {
        (&self.key, &self.secret)
    }

    /// A new bucket, as the server keeps it on disk: a folder.
    pub(crate) fn bucket(&self, name: &str) -> Bucket<'_> {
        fs::create_dir(self.folder.join("data").join(name)).unwrap();
        self.known(name)
    }

    /// The one that the oracle's cases share.
    pub(crate) fn oracle(&self) -> Bucket<'_> {
        fs::create_dir_all(self.folder.join("data").join("oracle")).unwrap();
        self.known("oracle")
    }

    /// A bucket that was made before.
    pub(crate) fn known(&self, name: &str) -> Bucket<'_> {
        Bucket { server: self, name: name.to_string() }
    }

    /// The environment by which the binary finds it.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let of = |name: &str, value: &str| (name.to_string(), value.to_string());
        BTreeMap::from([
            of("AWS_ENDPOINT", &self.endpoint()),
            of("AWS_ALLOW_HTTP", "true"),
            of("AWS_REGION", "us-east-1"),
            of("AWS_ACCESS_KEY_ID", &self.key),
            of("AWS_SECRET_ACCESS_KEY", &self.secret),
        ])
    }

    /// The same for the library.
    pub(crate) fn stores(&self) -> Stores {
        Stores::new(self.options())
    }

    pub(crate) fn options(&self) -> BTreeMap<String, String> {
        self.environment().into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A bucket and the ways into it.
pub(crate) struct Bucket<'a> {
    pub(crate) server: &'a Server,
    name: String,
}

impl Bucket<'_> {
    /// A location in it.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("s3://{}/{path}", self.name)
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.server.stores().open(&self.at("")).unwrap().store
    }

    /// Every object below a prefix.
    pub(crate) async fn list(&self, prefix: &str) -> Vec<Path> {
        let prefix = Path::from(prefix);
        self.store().list(Some(&prefix)).map_ok(|o| o.location).try_collect().await.unwrap()
    }

    /// Everything in it, by path.
    pub(crate) async fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let store = self.store();
        let paths: Vec<Path> = store.list(None).map_ok(|o| o.location).try_collect().await.unwrap();
        let read = stream::iter(paths).map(async |path| {
            let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
            (path.to_string(), bytes.to_vec())
        });
        read.buffer_unordered(8).collect().await
    }
}
