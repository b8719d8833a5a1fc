//! The broker that these tests share: one that runs already, at `WATERSHED_TEST_KAFKA_AT`, or one of their own from the jars
//! that `WATERSHED_KAFKA` names. The harness of the whole engine (`watershed/tests/it/kafka/broker.rs`) can do more with its.
//!
//! Invariant: a broker of our own ends with the process, however that ends: it is kept by a shell that reads from us.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

const KEEPER: &str = r#"
java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Djava.io.tmpdir="$2" -Dlog4j2.level=WARN \
    -cp "$1/*" kafka.Kafka "$2/server.properties" </dev/null >>"$2/log" 2>&1 &
broker=$!
read -r line
kill -9 "$broker"
wait "$broker" 2>/dev/null
rm -rf "$2"
"#;

const PROPERTIES: &str = include_str!("../../../../tools/kafka.properties");

/// What is deleted, or compacted, is so at once, and with little memory.
const AT_ONCE: &str = "
log.initial.task.delay.ms=0
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=16777216
";

/// Where it is; `None`, and a word about it, where there is none.
pub(crate) fn at() -> Option<String> {
    static BROKER: OnceLock<Option<(String, Option<Child>)>> = OnceLock::new();
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let found = BROKER.get_or_init(|| match (given("WATERSHED_TEST_KAFKA_AT"), given("WATERSHED_KAFKA")) {
        (Some(at), _) => Some((at, None)),
        (None, Some(jars)) => Some(start(&jars)),
        (None, None) => None,
    });
    if found.is_none() {
        println!("skipped: WATERSHED_KAFKA names no Kafka (tools/kafka.sh fetches it; make test does)");
    }
    found.as_ref().map(|(at, _)| at.clone())
}

fn start(jars: &str) -> (String, Option<Child>) {
    let folder = tempfile::tempdir().unwrap().keep();
    let [broker, controller] = free_ports();
    let properties = format!(
        "{PROPERTIES}{AT_ONCE}controller.quorum.voters=1@127.0.0.1:{controller}\nlisteners=PLAINTEXT://127.0.0.1:{broker},\
         CONTROLLER://127.0.0.1:{controller}\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n",
        folder.join("data").display()
    );
    fs::write(folder.join("server.properties"), properties).unwrap();
    let formatted = Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &format!("{jars}/*")])
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", "d2F0ZXJzaGVkLXRlc3RzIQ", "--config"])
        .arg(folder.join("server.properties"))
        .output()
        .unwrap();
    assert!(formatted.status.success(), "Kafka does not format: {}", String::from_utf8_lossy(&formatted.stderr));
    let keeper = Command::new("sh").args(["-c", KEEPER, "keeper", jars]).arg(&folder).stdin(Stdio::piped()).spawn();
    let at = format!("127.0.0.1:{broker}");
    let asker: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &at).create().unwrap();
    let answers = |_| {
        std::thread::sleep(Duration::from_millis(300));
        asker.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|found| !found.brokers().is_empty())
    };
    assert!(
        (0..90).any(answers),
        "Kafka does not answer: {}",
        fs::read_to_string(folder.join("log")).unwrap_or_default()
    );
    (at, Some(keeper.unwrap()))
}

/// Two that are free, held at once so that they differ.
fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}
