//! A connection that does nothing but ask and wait: what a store does beside that costs a history
//! of some hundred questions most of its time.

use super::super::super::connection::classify;
use super::*;
use crate::store::StoreError;
use fred::error::{Error, ErrorKind};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(super) struct Wire(BufReader<UnixStream>);

impl Wire {
    pub(super) fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(BufReader::new(stream))
    }

    pub(super) fn ask(
        &mut self,
        command: &str,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        let mut request = Vec::with_capacity(1024);
        write!(request, "*{}\r\n${}\r\n{command}\r\n", 1 + arguments.len(), command.len()).unwrap();
        for argument in arguments {
            write!(request, "${}\r\n", argument.len()).unwrap();
            request.extend_from_slice(&argument);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request).unwrap();
        self.reply()
    }

    /// One reply in RESP2.
    fn reply(&mut self) -> Result<Value, StoreError> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end_matches("\r\n").split_at(1);
        let length = || usize::try_from(rest.parse::<i64>().unwrap()).ok();
        Ok(match kind {
            "+" => Value::String(rest.into()),
            "-" => return Err(classify(&Error::new(ErrorKind::Unknown, rest.to_owned()))),
            ":" => Value::Integer(rest.parse().unwrap()),
            "$" => match length() {
                None => Value::Null,
                Some(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes).unwrap();
                    bytes.truncate(length);
                    Value::Bytes(bytes.into())
                }
            },
            "*" => match length() {
                None => Value::Null,
                Some(length) => {
                    Value::Array((0..length).map(|_| self.reply()).collect::<Result<_, _>>()?)
                }
            },
            _ => panic!("{line:?}"),
        })
    }
}
