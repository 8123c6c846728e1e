//! As much of the protocol of Redis (RESP2) as followers need, over a plain socket.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection that does nothing by itself.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    pub async fn send(&mut self, commands: &[&[&str]]) -> io::Result<()> {
        let sent: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        self.stream.write_all(&sent).await
    }

    /// Sends commands at once, and reads as many replies.
    pub async fn ask(&mut self, commands: &[&[&str]]) -> io::Result<Vec<Reply>> {
        self.send(commands).await?;
        let mut replies = Vec::new();
        for _ in commands {
            let used = self.reply().await?;
            replies.extend(Reply::parse(&self.unread).map(|(reply, _)| reply));
            self.skip(used);
        }
        Ok(replies)
    }

    /// The text of one reply.
    pub async fn text(&mut self, command: &[&str]) -> io::Result<String> {
        match self.ask(&[command]).await?.into_iter().next() {
            Some(Reply::Text(text)) => Ok(text),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Reads until a whole reply is there: how long it is.
    pub async fn reply(&mut self) -> io::Result<usize> {
        loop {
            if let Some(used) = length(&self.unread) {
                return Ok(used);
            }
            self.more().await?;
        }
    }

    /// What has come and was not skipped.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    pub fn skip(&mut self, used: usize) {
        self.unread.drain(..used);
    }

    /// Reads what comes next.
    pub async fn more(&mut self) -> io::Result<()> {
        self.unread.reserve(64 * 1024);
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The socket alone.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// A reply.
#[derive(Debug)]
pub enum Reply {
    /// A string, a number or an error; bytes that are no text are replaced, as none is needed here.
    Text(String),
    Array(Vec<Reply>),
    Nothing,
}

pub fn encode(command: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

impl Reply {
    /// The first reply, and how many bytes it has; `None` if it is not all there.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(bytes.get(1..end)?).into_owned();
        let mut used = end + 2;
        let reply = match bytes.first()? {
            b'$' => match line.parse::<i64>().ok()? {
                -1 => Self::Nothing,
                len => {
                    let to = used + usize::try_from(len).ok()?;
                    let text = String::from_utf8_lossy(bytes.get(used..to)?).into_owned();
                    bytes.get(to..to + 2)?;
                    used = to + 2;
                    Self::Text(text)
                }
            },
            b'*' => match line.parse::<i64>().ok()? {
                -1 => Self::Nothing,
                len => {
                    let mut parts = Vec::new();
                    for _ in 0..len {
                        let (part, more) = Self::parse(bytes.get(used..)?)?;
                        parts.push(part);
                        used += more;
                    }
                    Self::Array(parts)
                }
            },
            _ => Self::Text(line),
        };
        Some((reply, used))
    }
}

/// A line, without its end, and where the next one begins.
fn line(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    bytes.get(end + 1)?;
    Some((std::str::from_utf8(bytes.get(..end)?).ok()?, end + 2))
}

/// The length of the first reply; `None` if it is not all there.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let (head, mut used) = line(bytes)?;
    let number = || head.get(1..)?.parse::<i64>().ok();
    match head.as_bytes().first()? {
        b'$' => {
            let len = number()?;
            let to = if len < 0 { used } else { used + usize::try_from(len).ok()? + 2 };
            bytes.get(..to).map(<[u8]>::len)
        }
        b'*' => {
            for _ in 0..number()? {
                used += length(bytes.get(used..)?)?;
            }
            Some(used)
        }
        _ => Some(used),
    }
}

/// The ids in a whole reply to `XREAD` of one stream; `None` if it has read nothing.
pub fn ids_of_entries(bytes: &[u8]) -> Option<Vec<&str>> {
    let (head, mut at) = line(bytes)?;
    if head != "*1" {
        return None;
    }
    at += line(bytes.get(at..)?)?.1;
    at += length(bytes.get(at..)?)?;
    let (count, used) = line(bytes.get(at..)?)?;
    at += used;
    let mut ids = Vec::new();
    for _ in 0..count.get(1..)?.parse::<usize>().ok()? {
        at += line(bytes.get(at..)?)?.1;
        at += line(bytes.get(at..)?)?.1;
        let (id, used) = line(bytes.get(at..)?)?;
        ids.push(id);
        at += used;
        at += length(bytes.get(at..)?)?;
    }
    Some(ids)
}

/// The cursor at the beginning of a reply to `SCAN`, and how many members come with it; `None` if
/// that has not come yet.
pub fn page(bytes: &[u8]) -> Option<(&str, u64)> {
    let (head, mut at) = line(bytes)?;
    if head != "*2" {
        return None;
    }
    at += line(bytes.get(at..)?)?.1;
    let (cursor, used) = line(bytes.get(at..)?)?;
    at += used;
    let (count, _) = line(bytes.get(at..)?)?;
    Some((cursor, count.get(1..)?.parse::<u64>().ok()? / 2))
}
