//! The message type of a source, from a file of descriptors.
//!
//! Invariant: which type it is follows from the options and the file alone, and a choice that is not clear is an error.

use prost_reflect::prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use watershed_core::{Error, Result};

use crate::options::{Options, PROTOBUF_DESCRIPTORS, PROTOBUF_MESSAGE, PROTOBUF_REGISTRY, nearest};

const PROTOC: &str = "protoc --include_imports --descriptor_set_out=FILE";

/// The type that `protobuf.descriptors` and `protobuf.message` name.
pub(super) fn message(options: &Options<'_>) -> Result<MessageDescriptor> {
    if options.get(PROTOBUF_REGISTRY).is_some() {
        return Err(Error::input(format!(
            "{PROTOBUF_REGISTRY}: Protobuf schemas are not fetched from a registry, since it has them as text; compile \
             them with protoc, give {PROTOBUF_DESCRIPTORS}, and read messages with protobuf.framing = 'confluent'"
        )));
    }
    let path = options.get(PROTOBUF_DESCRIPTORS).ok_or_else(|| {
        Error::input(format!(
            "format 'protobuf' needs {PROTOBUF_DESCRIPTORS} = 'FILE', which {PROTOC} or buf build -o FILE writes"
        ))
    })?;
    let pool =
        read(path).map_err(|reason| Error::input(format!("option {PROTOBUF_DESCRIPTORS} = '{path}': {reason}")))?;
    choose(&pool, options.get(PROTOBUF_MESSAGE), path)
}

fn read(path: &str) -> Result<DescriptorPool, String> {
    if path.contains("://") {
        return Err("give the path of a local file".into());
    }
    let bytes = std::fs::read(path).map_err(|e| format!("it cannot be read: {e}"))?;
    let set = FileDescriptorSet::decode(bytes.as_slice())
        .map_err(|_| format!("it is no set of descriptors; give the file that {PROTOC} writes"))?;
    let newer = |file: &&FileDescriptorProto| !matches!(file.syntax(), "" | "proto2" | "proto3");
    if let Some(file) = set.file.iter().find(newer) {
        let name = file.name();
        return Err(format!(
            "{name} is in an edition, which is not read yet; write syntax = \"proto2\" or \"proto3\" in it"
        ));
    }
    DescriptorPool::from_file_descriptor_set(set).map_err(|e| match e.to_string() {
        reason if reason.contains("has not been added") => format!("{reason}; write it with --include_imports"),
        reason => format!("{reason}; give the file that {PROTOC} writes"),
    })
}

fn choose(pool: &DescriptorPool, name: Option<&str>, path: &str) -> Result<MessageDescriptor> {
    if let Some(found) = name.and_then(|name| pool.get_message_by_name(name)).filter(|found| !found.is_map_entry()) {
        return Ok(found);
    }
    if let Some(name) = name {
        let all: Vec<_> = pool.all_messages().filter(|message| !message.is_map_entry()).collect();
        let names: Vec<_> = all.iter().map(MessageDescriptor::full_name).collect();
        // Often it is the package that was left out.
        let same = names.iter().find(|known| known.rsplit('.').next() == Some(name));
        let hint = same.map_or_else(|| nearest(name, &names), |known| format!("did you mean {known}?"));
        return Err(Error::input(format!("option {PROTOBUF_MESSAGE}: there is no {name} in {path}; {hint}")));
    }
    let own = pool.files().filter(|file| file.package_name() != "google.protobuf");
    let top: Vec<_> = own.flat_map(|file| file.messages().collect::<Vec<_>>()).collect();
    match top.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Error::input(format!("option {PROTOBUF_DESCRIPTORS} = '{path}': it has no message types"))),
        several => {
            let names: Vec<_> = several.iter().map(MessageDescriptor::full_name).collect();
            let names = names.join(", ");
            Err(Error::input(format!("say which message type it is: {PROTOBUF_MESSAGE} is one of {names}")))
        }
    }
}
