//! A provider that does little and does it fast: the same answers always, streams in eight parts.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PARTS: usize = 8;
const GAP: Duration = Duration::from_millis(5);

/// Serves until the process ends.
pub(super) async fn serve(name: &'static str, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        stream.set_nodelay(true).ok();
        tokio::spawn(converse(name, stream));
    }
}

async fn converse(name: &'static str, mut stream: TcpStream) -> io::Result<()> {
    let plain = plain(name);
    let mut read = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = request_length(&read) {
                break length;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let body = &read[..length];
        let streamed = memchr::memmem::find(body, b"\"stream\":true").is_some();
        read.drain(..length);
        if !streamed {
            stream.write_all(plain.as_bytes()).await?;
            continue;
        }
        let head = head(name, "text/event-stream", "transfer-encoding: chunked");
        stream.write_all(head.as_bytes()).await?;
        for _ in 0..PARTS {
            tokio::time::sleep(GAP).await;
            let delta = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-one\",\
                \"choices\":[{\"index\":0,\"delta\":{\"content\":\"canary or legacy\"},\"finish_reason\":null}]}\n\n";
            stream.write_all(chunk(delta).as_bytes()).await?;
        }
        let end = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-one\",\
            \"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"id\":\"c\",\
            \"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-one\",\"choices\":[],\"usage\":\
            {\"prompt_tokens\":120,\"completion_tokens\":8,\"total_tokens\":128}}\n\ndata: [DONE]\n\n";
        let end = format!("{}0\r\n\r\n", chunk(end));
        stream.write_all(end.as_bytes()).await?;
    }
}

/// The length of the first request in `bytes`, once all of it is there.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = head + length.unwrap_or(0);
    (bytes.len() >= whole).then_some(whole)
}

fn head(name: &str, content_type: &str, framing: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nx-provider: {name}\r\n\
         x-request-id: req_0123456789abcdef\r\n{framing}\r\n\r\n"
    )
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn plain(name: &str) -> String {
    let body = format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion\",\"model\":\"gpt-4o-one\",\"choices\":[{{\"index\":0,\"message\":\
         {{\"role\":\"assistant\",\"content\":\"{name} answers\"}},\"finish_reason\":\"stop\"}}],\"usage\":\
         {{\"prompt_tokens\":120,\"completion_tokens\":30,\"total_tokens\":150}}}}"
    );
    let framing = format!("content-length: {}", body.len());
    format!("{}{body}", head(name, "application/json", &framing))
}
