//! Look-ups: one record, pages of records, how many there are.

use bytes::Bytes;
use fred::types::Value;

use super::command::StoreCommand;
use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::reply::read_record;
use super::schema::IndexMember;
use crate::clock::{Clock as _, SystemClock};
use crate::revocation::{Fingerprint, Record};
use crate::store::{ListQuery, RecordPage, StoreError, StoreErrorKind};

impl StoreCore {
    /// The record of one target.
    pub(crate) async fn find(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Record>, StoreError> {
        let shard = self.keys.shard_of(fingerprint);
        let key = self.keys.shard(shard).record(fingerprint);
        match self.send(shard, StoreCommand::Plain("GET"), vec![key]).await? {
            Value::Null => Ok(None),
            value => read_record(&value, fingerprint).map(Some),
        }
    }

    /// One page of the records that are in effect, by the index of one shard after the other.
    pub(crate) async fn list(&self, query: &ListQuery) -> Result<RecordPage, StoreError> {
        let (shard, position) = match &query.cursor {
            Some(cursor) => self.parse_cursor(cursor)?,
            None => (0, 0),
        };
        let keys = self.keys.shard(shard);
        let arguments = vec![
            keys.index.clone(),
            position.to_string().into(),
            Bytes::from_static(b"COUNT"),
            query.page_size().to_string().into(),
        ];
        let Value::Array(reply) = self.send(shard, StoreCommand::Plain("ZSCAN"), arguments).await?
        else {
            return Err(unexpected_reply("redis"));
        };
        let [position, Value::Array(members)] = reply.as_slice() else {
            return Err(unexpected_reply("redis"));
        };
        let position: u64 = position
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| unexpected_reply("redis"))?;
        let mut fingerprints = Vec::with_capacity(members.len() / 2);
        for pair in members.chunks(2) {
            let member = pair
                .first()
                .and_then(Value::as_bytes)
                .and_then(|member| IndexMember::parse(member).ok());
            fingerprints.push(member.ok_or_else(|| unexpected_reply("redis"))?.fingerprint);
        }
        let next = match (position, shard + 1) {
            (0, next) if next == self.keys.shards() => None,
            (0, next) => Some((next, 0)),
            (position, _) => Some((shard, position)),
        };
        Ok(RecordPage {
            records: self.read_page(shard, &fingerprints, query).await?,
            next: next.map(|(shard, position)| format!("{shard}:{position}").into()),
        })
    }

    async fn read_page(
        &self,
        shard: u16,
        fingerprints: &[Fingerprint],
        query: &ListQuery,
    ) -> Result<Vec<Record>, StoreError> {
        if fingerprints.is_empty() {
            return Ok(Vec::new());
        }
        let keys = fingerprints
            .iter()
            .map(|fingerprint| self.keys.shard(shard).record(fingerprint))
            .collect();
        let Value::Array(values) = self.send(shard, StoreCommand::Plain("MGET"), keys).await?
        else {
            return Err(unexpected_reply("redis"));
        };
        let mut records = Vec::with_capacity(values.len());
        for (value, fingerprint) in values.iter().zip(fingerprints) {
            // An entry of the index goes later than its record, and the target may have been
            // reinstated meanwhile.
            if !value.is_null() {
                let record = read_record(value, fingerprint)?;
                if record.is_in_effect() && query.admits(&record) {
                    records.push(record);
                }
            }
        }
        Ok(records)
    }

    fn parse_cursor(&self, cursor: &str) -> Result<(u16, u64), StoreError> {
        cursor
            .split_once(':')
            .and_then(|(shard, position)| Some((shard.parse().ok()?, position.parse().ok()?)))
            .filter(|(shard, _)| *shard < self.keys.shards())
            .ok_or_else(|| {
                StoreError::new(
                    StoreErrorKind::InvalidInput,
                    "the cursor was not given out by this redis store",
                )
            })
    }

    /// How many records are in effect, by the indexes.
    pub(crate) async fn count(&self) -> Result<u64, StoreError> {
        let after = format!("({}", SystemClock.now().as_millis());
        let mut total = 0;
        for shard in 0..self.keys.shards() {
            let index = self.keys.shard(shard).index.clone();
            let arguments = vec![index, after.clone().into(), Bytes::from_static(b"+inf")];
            match self.send(shard, StoreCommand::Plain("ZCOUNT"), arguments).await? {
                Value::Integer(count) => total += u64::try_from(count).unwrap_or(0),
                _ => return Err(unexpected_reply("redis")),
            }
        }
        Ok(total)
    }
}
