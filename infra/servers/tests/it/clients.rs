//! Minimal clients: just enough of each protocol for the tests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sha1::{Digest, Sha1};

/// The parts of `scheme://user:password@host:port/path` that a url has.
pub(crate) struct Url<'a> {
    user: &'a str,
    password: &'a str,
    pub(crate) address: &'a str,
    path: &'a str,
}

pub(crate) fn parse(url: &str) -> Url<'_> {
    let (_, rest) = url.split_once("://").unwrap();
    let (login, place) = rest.split_once('@').unwrap_or((":", rest));
    let (user, password) = login.split_once(':').unwrap();
    let (address, path) = place.split_once('/').unwrap_or((place, ""));
    Url { user, password, address, path }
}

pub(crate) fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(parse(url).address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// One Redis command; the first line of the reply, or the content of a bulk string of one line.
pub(crate) fn redis(url: &str, command: &str) -> io::Result<String> {
    let mut stream = BufReader::new(connect(url));
    stream.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line.starts_with('$') && !line.starts_with("$-1") {
        line.clear();
        stream.read_line(&mut line)?;
    }
    Ok(line.trim_end().to_owned())
}

/// Logs in with mysql_native_password and runs statements; `Err` holds the first error packet's
/// message.
pub(crate) fn mysql(url: &str, statements: &[&str]) -> Result<Vec<Vec<u8>>, String> {
    const CAPABILITIES: u32 = 0x0008_8209 | 0x0000_0004; // 4.1, secure connection, plugin auth, with a database
    let login = parse(url);
    let mut stream = connect(url);
    let greeting = mysql_packet(&mut stream)?;
    let version_end = 1 + greeting[1..].iter().position(|&b| b == 0).unwrap();
    let first = version_end + 1 + 4;
    let second = first + 8 + 1 + 2 + 1 + 2 + 2 + 1 + 10;
    let nonce = [&greeting[first..first + 8], &greeting[second..second + 12]].concat();
    let hashed = Sha1::digest(login.password.as_bytes());
    let salted = Sha1::new().chain_update(&nonce).chain_update(Sha1::digest(hashed)).finalize();
    let scramble: Vec<u8> = hashed.iter().zip(salted).map(|(a, b)| a ^ b).collect();

    let mut body = CAPABILITIES.to_le_bytes().to_vec();
    body.extend((1_u32 << 24).to_le_bytes());
    body.push(45); // utf8mb4
    body.extend([0; 23]);
    body.extend(login.user.as_bytes());
    body.extend([0, 20]);
    body.extend(scramble);
    body.extend(login.path.as_bytes());
    body.push(0);
    body.extend(b"mysql_native_password\0");
    mysql_send(&mut stream, 1, &body);
    mysql_packet(&mut stream)?;
    let mut answers = Vec::new();
    for statement in statements {
        let mut stream_body = vec![3];
        stream_body.extend(statement.as_bytes());
        mysql_send(&mut stream, 0, &stream_body);
        let first = mysql_packet(&mut stream)?;
        if first[0] == 0 {
            continue; // OK packet
        }
        mysql_packet(&mut stream)?; // the one column
        mysql_packet(&mut stream)?; // end of columns
        loop {
            let row = mysql_packet(&mut stream)?;
            if row[0] == 0xfe {
                break;
            }
            answers.push(row[1..].to_vec());
        }
    }
    Ok(answers)
}

fn mysql_send(stream: &mut TcpStream, sequence: u8, body: &[u8]) {
    let mut packet = u32::try_from(body.len()).unwrap().to_le_bytes();
    packet[3] = sequence;
    stream.write_all(&[&packet[..], body].concat()).unwrap();
}

fn mysql_packet(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).map_err(|e| e.to_string())?;
    header[3] = 0;
    let mut body = vec![0; usize::try_from(u32::from_le_bytes(header)).unwrap()];
    stream.read_exact(&mut body).map_err(|e| e.to_string())?;
    if body[0] == 0xff {
        return Err(String::from_utf8_lossy(&body[3..]).into_owned());
    }
    Ok(body)
}

/// An AMQP connection with an open channel 1.
pub(crate) struct Amqp(TcpStream);

impl Amqp {
    /// Logs in with PLAIN; an error when the server closes the connection, as it does after a wrong
    /// password.
    pub(crate) fn open(url: &str) -> io::Result<Self> {
        let login = parse(url);
        let mut amqp = Self(connect(url));
        amqp.0.write_all(b"AMQP\x00\x00\x09\x01")?;
        amqp.expect(10, 10)?;
        let plain = format!("\0{}\0{}", login.user, login.password);
        let mut start_ok = vec![0, 0, 0, 0]; // no client properties
        start_ok.extend(short("PLAIN"));
        start_ok.extend(u32::try_from(plain.len()).unwrap().to_be_bytes());
        start_ok.extend(plain.as_bytes());
        start_ok.extend(short("en_US"));
        amqp.method(0, 10, 11, &start_ok)?;
        let tune = amqp.expect(10, 30)?;
        amqp.method(0, 10, 31, &tune)?;
        assert_eq!(login.path, "%2f");
        amqp.method(0, 10, 40, &[short("/"), vec![0, 0]].concat())?;
        amqp.expect(10, 41)?;
        amqp.method(1, 20, 10, &[0])?;
        amqp.expect(20, 11)?;
        Ok(amqp)
    }

    /// Declares a durable quorum queue; with `passive`, only checks that it exists.
    pub(crate) fn declare(&mut self, queue: &str, passive: bool) -> io::Result<()> {
        let mut arguments = short("x-queue-type");
        arguments.extend([b'S', 0, 0, 0, 6]);
        arguments.extend(b"quorum");
        let mut body = vec![0, 0];
        body.extend(short(queue));
        body.push(0b10 | u8::from(passive));
        body.extend(u32::try_from(arguments.len()).unwrap().to_be_bytes());
        body.extend(arguments);
        self.method(1, 50, 10, &body)?;
        self.expect(50, 11)?;
        Ok(())
    }

    fn method(&mut self, channel: u8, class: u8, method: u8, arguments: &[u8]) -> io::Result<()> {
        let length = u32::try_from(4 + arguments.len()).unwrap();
        let mut frame = vec![1, 0, channel];
        frame.extend(length.to_be_bytes());
        frame.extend([0, class, 0, method]);
        frame.extend(arguments);
        frame.push(0xce);
        self.0.write_all(&frame)
    }

    fn expect(&mut self, class: u8, method: u8) -> io::Result<Vec<u8>> {
        let mut header = [0; 7];
        self.0.read_exact(&mut header)?;
        let length = u32::from_be_bytes(header[3..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap() + 1];
        self.0.read_exact(&mut body)?;
        if body[..4] != [0, class, 0, method] {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(io::Error::other(text));
        }
        Ok(body[4..body.len() - 1].to_vec())
    }
}

fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend(text.as_bytes());
    bytes
}
