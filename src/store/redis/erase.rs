//! Erases what names people in records.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fred::types::Value;

use super::command::SendContext;
use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::schema::print_words;
use super::script::{LuaScript, epoch_id};
use super::write::CHUNK;
use crate::revocation::{Fingerprint, Target};
use crate::store::{Doubt, StoreError};

pub(super) const ERASE: LuaScript = LuaScript {
    source: include_str!("erase.lua"),
    sha: "59efe989f39a6864213b133676bc67e464571275",
    writes: true,
};

impl StoreCore {
    /// Makes the records of these targets nameless.
    pub(crate) async fn erase_names(&self, targets: &[Target]) -> Result<(), StoreError> {
        let mut shards: BTreeMap<u16, BTreeSet<Fingerprint>> = BTreeMap::new();
        for target in targets {
            let fingerprint = target.fingerprint();
            shards.entry(self.keys.shard_of(&fingerprint)).or_default().insert(fingerprint);
        }
        for (shard, fingerprints) in shards {
            // What this process would write again is erased first.
            self.writers.erase_names(shard, &fingerprints);
            let fingerprints: Vec<_> = fingerprints.into_iter().collect();
            for chunk in fingerprints.chunks(CHUNK) {
                self.erase_chunk(shard, chunk).await?;
            }
        }
        Ok(())
    }

    async fn erase_chunk(
        &self,
        shard: u16,
        fingerprints: &[Fingerprint],
    ) -> Result<(), StoreError> {
        let names = self.keys.shard(shard);
        let arguments = |context: &mut SendContext| {
            let mut arguments: Vec<Bytes> = vec![(fingerprints.len() + 1).to_string().into()];
            arguments.push(names.epoch.clone());
            arguments.extend(fingerprints.iter().map(|fingerprint| names.record(fingerprint)));
            arguments.push(epoch_id(context.server));
            arguments.extend(fingerprints.iter().map(|fingerprint| {
                Bytes::from(print_words(&Target::nameless(fingerprint), None, None))
            }));
            Ok(arguments)
        };
        let read = |_: &SendContext, reply: Value| match reply.as_str().as_deref() {
            Some("done") => Ok(()),
            Some("settling") => Err(Doubt::Settling.error()),
            _ => Err(unexpected_reply("the script")),
        };
        self.run(shard, &ERASE, arguments, read).await.map(drop)
    }
}
