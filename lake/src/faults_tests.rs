//! Each fault does what its row of the table says.

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutMode};

use super::*;

fn store(plan: FaultPlan) -> (FaultStore, Arc<InMemory>) {
    let inner = Arc::new(InMemory::new());
    (FaultStore::new(inner.clone(), plan), inner)
}

#[tokio::test]
async fn before_and_after_differ_in_effect() {
    for (fault, happened, dead) in [
        (Fault::Before, false, false),
        (Fault::After, true, false),
        (Fault::CrashBefore, false, true),
        (Fault::CrashAfter, true, true),
    ] {
        let (faulty, inner) = store(FaultPlan { at: Some((1, fault)), writes_only: true, ..Default::default() });
        let put = async |name: &str| faulty.put(&Path::from(name), "x".into()).await;
        put("a").await.unwrap();
        put("b").await.unwrap_err();
        assert_eq!(inner.head(&Path::from("b")).await.is_ok(), happened, "{fault:?}");
        assert_eq!((faulty.crashed(), put("c").await.is_err()), (dead, dead), "{fault:?}");
        assert_eq!(faulty.get(&Path::from("a")).await.is_err(), dead, "{fault:?}");
        assert_eq!(faulty.counts().faults(), 1);
    }
}

#[tokio::test]
async fn one_seed_one_run() {
    let run = |seed| async move {
        let plan = FaultPlan { seed, before: 0.2, after: 0.2, only: Some("log".into()), ..Default::default() };
        let (faulty, _) = store(plan);
        let mut seen = vec![];
        for i in 0..200 {
            let options = PutOptions { mode: PutMode::Create, ..Default::default() };
            seen.push(faulty.put_opts(&Path::from(format!("log/{i}")), "x".into(), options).await.is_ok());
            faulty.put(&Path::from(format!("data/{i}")), "x".into()).await.unwrap();
        }
        (seen, faulty.counts())
    };
    let (seen, counts) = run(7).await;
    assert_eq!((seen.clone(), counts), run(7).await);
    assert_ne!(seen, run(8).await.0);
    assert_eq!(counts.operations, 200);
    assert!((20..60).contains(&counts.before) && (20..60).contains(&counts.after), "{counts:?}");
}

#[tokio::test]
async fn uploads_and_deletes_fail_too() {
    let (faulty, inner) = store(FaultPlan { at: Some((2, Fault::After)), ..Default::default() });
    let path = Path::from("big");
    let mut upload = faulty.put_multipart(&path).await.unwrap();
    upload.put_part("x".into()).await.unwrap();
    upload.complete().await.unwrap_err();
    inner.head(&path).await.unwrap();
    let (faulty, inner) = store(FaultPlan { at: Some((0, Fault::Before)), writes_only: true, ..Default::default() });
    inner.put(&path, "x".into()).await.unwrap();
    faulty.delete(&path).await.unwrap_err();
    inner.head(&path).await.unwrap();
    faulty.delete(&path).await.unwrap();
    inner.head(&path).await.unwrap_err();
}
