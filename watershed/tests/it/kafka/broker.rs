//! A Kafka of the test's own: one node, on loopback, in a temporary folder, gone when the test process is.
//!
//! * [`topics`]: what is done with topics and their messages.
//!
//! A broker that is killed dies as by `kill -9`: what it acknowledged is there when it starts again, on the same ports.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use watershed_core::clock::{Clock, SystemClock};

pub(crate) mod topics;

mod tests;

pub(crate) use topics::Record;

/// As MinIO's: the broker ends with whoever holds the pipe. Its codecs unpack themselves into the temporary folder.
const KEEPER: &str = r#"
java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Djava.io.tmpdir="$2" -Dlog4j2.level=WARN \
    -cp "$1/*" kafka.Kafka "$2/server.properties" </dev/null >>"$2/log" 2>&1 &
broker=$!
read -r line
kill -9 "$broker"
wait "$broker" 2>/dev/null
[ "$line" = keep ] || rm -rf "$2"
"#;

const PROPERTIES: &str = include_str!("../../../../tools/kafka.properties");

/// What is deleted, or compacted, is so at once, and with little memory.
const AT_ONCE: &str = "
log.initial.task.delay.ms=0
log.flush.start.offset.checkpoint.interval.ms=100
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=16777216
";

/// A killed broker is let in again once its last session is over.
const SESSION: [(&str, &str); 2] = [("broker.session.timeout.ms", "2000"), ("broker.heartbeat.interval.ms", "500")];

/// A broker, running or killed.
pub(crate) struct Broker {
    jars: String,
    folder: PathBuf,
    /// Where it listens, by the names of the listeners.
    ports: BTreeMap<&'static str, u16>,
    keeper: Option<Child>,
}

impl Broker {
    /// The one broker of the test binary, whose topics are told apart by their names; `None` where there is no Kafka.
    pub(crate) fn shared() -> Option<&'static Broker> {
        static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
        BROKER.get_or_init(|| Broker::start(&["PLAINTEXT"], |_| vec![])).as_ref()
    }

    /// A broker that the caller may kill, with these properties besides the usual ones, such as `log.segment.bytes`; `None`
    /// where there is no Kafka.
    pub(crate) fn start_own(extra: &[(&str, &str)]) -> Option<Broker> {
        let extra = SESSION.iter().chain(extra);
        let extra: Vec<_> = extra.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Broker::start(&["PLAINTEXT"], |_| extra)
    }

    /// A broker that also lets in the user `reader` with this password, of letters and digits: without TLS at
    /// [`sasl`](Broker::sasl), with TLS at [`tls`](Broker::tls). `None` where there is no Kafka.
    pub(crate) fn start_secured(password: &str) -> Option<Broker> {
        Broker::start(&["PLAINTEXT", "SASL", "TLS"], |folder| {
            make_certificate(folder);
            let user =
                format!("org.apache.kafka.common.security.plain.PlainLoginModule required user_reader=\"{password}\";");
            let properties = [
                ("sasl.enabled.mechanisms", "PLAIN".to_string()),
                ("listener.name.sasl.plain.sasl.jaas.config", user.clone()),
                ("listener.name.tls.plain.sasl.jaas.config", user),
                ("ssl.keystore.type", "PKCS12".to_string()),
                ("ssl.keystore.location", folder.join("keys").display().to_string()),
                ("ssl.keystore.password", KEYS.to_string()),
            ];
            properties.map(|(name, value)| (name.to_string(), value)).to_vec()
        })
    }

    fn start(listeners: &[&'static str], extra: impl FnOnce(&Path) -> Vec<(String, String)>) -> Option<Broker> {
        let Some(jars) = std::env::var("WATERSHED_KAFKA").ok().filter(|jars| !jars.is_empty()) else {
            println!("skipped: WATERSHED_KAFKA names no Kafka (tools/kafka.sh fetches it; make test does)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap().keep();
        let names = listeners.iter().copied().chain(["CONTROLLER"]);
        let ports = names.zip(free_ports(listeners.len() + 1)).collect();
        let mut broker = Broker { jars, folder, ports, keeper: None };
        let extra = extra(&broker.folder);
        fs::write(broker.folder.join("server.properties"), broker.properties(&extra)).unwrap();
        broker.format();
        broker.start_again();
        Some(broker)
    }

    fn properties(&self, extra: &[(String, String)]) -> String {
        let listeners: Vec<_> = self.ports.iter().map(|(name, port)| format!("{name}://127.0.0.1:{port}")).collect();
        let mut lines = vec![
            PROPERTIES.to_string(),
            AT_ONCE.to_string(),
            format!("controller.quorum.voters=1@127.0.0.1:{}", self.ports["CONTROLLER"]),
            format!("listeners={}", listeners.join(",")),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL"
                .to_string(),
            format!("log.dirs={}", self.data().display()),
        ];
        lines.extend(extra.iter().map(|(name, value)| format!("{name}={value}")));
        lines.join("\n")
    }

    fn format(&self) {
        let out = Command::new("java")
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", self.jars)])
            .args(["kafka.tools.StorageTool", "format", "--cluster-id", "d2F0ZXJzaGVkLXRlc3RzIQ", "--config"])
            .arg(self.folder.join("server.properties"))
            .output()
            .expect("java starts");
        assert!(out.status.success(), "Kafka does not format: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Starts the broker, again, where it was.
    pub(crate) fn start_again(&mut self) {
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", &self.jars])
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .spawn();
        self.keeper = Some(keeper.expect("sh starts"));
        let answered = patiently(|| self.answers());
        assert!(answered, "Kafka does not answer: {}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
    }

    /// Ends the broker as a crash would; what it holds stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            writeln!(keeper.stdin.take().unwrap(), "keep").unwrap();
            keeper.wait().unwrap();
        }
    }

    /// It does once it is let in and leads every partition.
    fn answers(&self) -> bool {
        if TcpStream::connect(("127.0.0.1", self.ports["PLAINTEXT"])).is_err() {
            return false;
        }
        let asker: BaseConsumer = self.client().create().unwrap();
        asker.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|cluster| {
            let led = |topic: &rdkafka::metadata::MetadataTopic| topic.partitions().iter().all(|p| p.leader() >= 0);
            !cluster.brokers().is_empty() && cluster.topics().iter().all(led)
        })
    }

    /// Where anybody is let in, without TLS: a `bootstrap.servers`.
    pub(crate) fn address(&self) -> String {
        self.at("PLAINTEXT")
    }

    /// Where `reader` is let in by the mechanism `PLAIN`, without TLS.
    pub(crate) fn sasl(&self) -> String {
        self.at("SASL")
    }

    /// Where `reader` is let in by the mechanism `PLAIN`, with TLS, and the certificate to trust, as PEM.
    pub(crate) fn tls(&self) -> (String, PathBuf) {
        (self.at("TLS"), self.folder.join("certificate.pem"))
    }

    fn at(&self, listener: &str) -> String {
        format!("127.0.0.1:{}", self.ports[listener])
    }

    /// A client's configuration, with where the broker is.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const KEYS: &str = "changeit";

/// A key and its own certificate for the loopback address: for the broker as a store of keys, for clients as PEM.
fn make_certificate(folder: &Path) {
    let keytool = |arguments: &[&str]| {
        let mut command = Command::new("keytool");
        command.current_dir(folder).args(arguments).args(["-keystore", "keys", "-storepass", KEYS, "-alias", "broker"]);
        let out = command.output().expect("keytool starts");
        assert!(out.status.success(), "keytool: {}", String::from_utf8_lossy(&out.stdout));
    };
    let names = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1"];
    keytool(&[&["-genkeypair", "-keyalg", "EC", "-storetype", "PKCS12", "-validity", "3650"][..], &names[..]].concat());
    keytool(&["-exportcert", "-rfc", "-file", "certificate.pem"]);
}

/// Ports below those that systems hand out by themselves: such a one could be taken while the broker is down, even by a
/// client that tries to reach it.
fn free_ports(count: usize) -> Vec<u16> {
    let clock = SystemClock::default();
    let candidates = std::iter::repeat_with(|| 10_000 + u16::try_from(clock.id().as_u128() % 20_000).unwrap());
    // Held until there are enough, so that none is taken twice.
    let held: Vec<_> = candidates.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Whether something comes about within a minute.
fn patiently(mut comes_about: impl FnMut() -> bool) -> bool {
    (0..1200).any(|_| {
        let there = comes_about();
        if !there {
            std::thread::sleep(Duration::from_millis(50));
        }
        there
    })
}
