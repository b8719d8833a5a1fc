//! A case's folders in a bucket: jobs see the bucket, and what they leave is copied back and compared as ever.

use std::fs;
use std::path::Path as Folder;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use watershed_core::clock::{Clock, SystemClock};
use watershed_lake::Stores;

use crate::minio::server::Server;

/// How many objects are copied at once.
const COPIES: usize = 8;

pub(crate) struct Remote {
    /// A prefix in a bucket, as a location.
    pub(crate) root: String,
    pub(crate) stores: Stores,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Remote {
    /// With what the folder has.
    pub(crate) async fn new(server: &Server, folder: &Folder) -> Remote {
        let bucket = server.oracle();
        let root = bucket.at(&SystemClock::default().id().simple().to_string());
        let stores = server.stores();
        let place = stores.open(&root).unwrap();
        let remote = Remote { root, stores, store: place.store, prefix: place.path };
        let puts = stream::iter(files(folder)).map(|file| {
            let path = Path::from(format!("{}/{}", remote.prefix, file.strip_prefix(folder).unwrap().display()));
            let store = &remote.store;
            async move { store.put(&path, fs::read(&file).unwrap().into()).await.unwrap() }
        });
        puts.buffer_unordered(COPIES).for_each(async |_| {}).await;
        remote
    }

    /// Copies what is new. Objects are never changed, but for the hint at the newest checkpoint of a log.
    pub(crate) async fn copy_to(&self, folder: &Folder) {
        let listed: Vec<ObjectMeta> = self.store.list(Some(&self.prefix)).try_collect().await.unwrap();
        let copies = stream::iter(listed).map(async |object| {
            let below = object.location.as_ref().strip_prefix(self.prefix.as_ref()).unwrap().trim_start_matches('/');
            let file = folder.join(below);
            if file.exists() && !below.ends_with("_last_checkpoint") {
                return;
            }
            let bytes = self.store.get(&object.location).await.unwrap().bytes().await.unwrap();
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        });
        copies.buffer_unordered(COPIES).for_each(async |()| {}).await;
    }
}

fn files(folder: &Folder) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
