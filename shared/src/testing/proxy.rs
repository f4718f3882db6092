//! A TCP proxy that injects network faults on command.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// The fault that is injected from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// New connections are refused; established ones keep working.
    Refuse,
    /// Connections stay open and new ones are accepted, but no bytes pass in either direction.
    BlackHole,
    /// Requests pass; answers do not.
    LoseAnswers,
    /// All bytes are delayed by this time.
    Delay(Duration),
}

/// Forwards TCP connections to a target. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    listening: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct Control {
    fault: Fault,
    /// The target of new connections.
    target: SocketAddr,
    /// Raised to cut every connection.
    cuts: u64,
    /// Raised to silence every connection.
    silences: u64,
}

impl FaultProxy {
    /// A proxy on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port is available.
    pub async fn start(target: SocketAddr) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), target).await
    }

    /// A proxy on this address.
    ///
    /// # Panics
    /// When the address is not available.
    pub async fn start_at(address: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("a listener has an address");
        let (control, changes) =
            watch::channel(Control { fault: Fault::None, target, cuts: 0, silences: 0 });
        let (listens, listening) = watch::channel(true);
        let task = tokio::spawn(accept(Some(listener), address, changes, listens));
        Self { address, control, listening, task }
    }

    /// The address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url` with its host and port replaced by the proxy's.
    ///
    /// # Panics
    /// When `url` has no host and port of the form `127.0.0.1:PORT`.
    #[must_use]
    pub fn through(&self, url: &str) -> String {
        let start = url.find("127.0.0.1:").expect("the url of a test server names 127.0.0.1");
        let digits =
            url[start + 10..].find(|c: char| !c.is_ascii_digit()).unwrap_or(url.len() - start - 10);
        format!("{}{}{}", &url[..start], self.address, &url[start + 10 + digits..])
    }

    /// Sets the fault. A connection that has lost bytes is cut when bytes flow again. Returns once
    /// connections are accepted or refused as `fault` requires.
    pub async fn set(&self, fault: Fault) {
        self.control.send_modify(|control| control.fault = fault);
        let mut listening = self.listening.clone();
        let wanted = fault != Fault::Refuse;
        listening
            .wait_for(|&listens| listens == wanted)
            .await
            .expect("the proxy runs as long as its handle");
    }

    /// Ends every connection, as a crash of either side would.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }

    /// Silences every existing connection permanently, as when the remote host has vanished: it
    /// stays open, no bytes pass, and it is not cut when the fault ends. New connections work.
    pub fn silence(&self) {
        self.control.send_modify(|control| control.silences += 1);
    }

    /// Directs new connections to another server, as DNS does after a failover. Established ones
    /// keep working.
    pub fn retarget(&self, target: SocketAddr) {
        self.control.send_modify(|control| control.target = target);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    mut listener: Option<TcpListener>,
    address: SocketAddr,
    mut changes: watch::Receiver<Control>,
    listens: watch::Sender<bool>,
) {
    // Aborted together with this task.
    let mut connections = JoinSet::new();
    loop {
        let refuse = changes.borrow_and_update().fault == Fault::Refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen_again(address).await);
        }
        listens.send_replace(!refuse);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            accepted = async { listener.as_ref().expect("guarded").accept().await }, if listener.is_some() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(serve(client, changes.clone()));
                }
            }
        }
    }
}

async fn listen_again(address: SocketAddr) -> TcpListener {
    loop {
        let bound = TcpSocket::new_v4().and_then(|socket| {
            // Earlier connections may still linger on the port.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(1_024)
        });
        match bound {
            Ok(listener) => return listener,
            // Another process may use the port for a moment; retry.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn serve(client: TcpStream, mut changes: watch::Receiver<Control>) {
    let Control { fault, target, cuts, silences } = *changes.borrow_and_update();
    if fault == Fault::BlackHole {
        // The connection is accepted, but the client's bytes are lost, so it can't be used later.
        let _ = changes
            .wait_for(|control| control.cuts != cuts || control.fault != Fault::BlackHole)
            .await;
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without this, every answer waits for the peer's delayed acknowledgement.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one direction ends, the connection is closed.
    tokio::select! {
        _ = pump(from_client, to_server, changes.clone(), silences, false) => {}
        _ = pump(from_server, to_client, changes.clone(), silences, true) => {}
        _ = changes.wait_for(|control| control.cuts != cuts) => {}
    }
}

fn swallows(fault: Fault, answers: bool) -> bool {
    fault == Fault::BlackHole || (answers && fault == Fault::LoseAnswers)
}

async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut changes: watch::Receiver<Control>,
    silences: u64,
    answers: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1_024];
    let mut lost = false;
    loop {
        if changes.borrow_and_update().silences != silences {
            // Wait until the connection is cut.
            std::future::pending::<()>().await;
        }
        if lost && !swallows(changes.borrow_and_update().fault, answers) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        tokio::select! {
            changed = changes.changed() => {
                changed.map_err(|_| io::ErrorKind::ConnectionAborted)?;
                continue;
            }
            readable = from.readable() => readable?,
        }
        let length = match from.try_read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let fault = changes.borrow().fault;
        if swallows(fault, answers) {
            if length == 0 {
                // Not even the end of the stream is forwarded.
                let _ = changes.wait_for(|control| !swallows(control.fault, answers)).await;
                return Ok(());
            }
            lost = true;
            continue;
        }
        if length == 0 {
            return Ok(());
        }
        if let Fault::Delay(delay) = fault {
            sleep(delay).await;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            to.writable().await?;
            match to.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that echoes each byte.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    loop {
                        stream.readable().await.unwrap();
                        let mut byte = [0];
                        match stream.try_read(&mut byte) {
                            Ok(0) => return,
                            Ok(_) => assert_eq!(stream.try_write(&byte).unwrap(), 1),
                            Err(_) => {}
                        }
                    }
                });
            }
        });
        address
    }

    async fn say(stream: &TcpStream, byte: u8) {
        stream.writable().await.unwrap();
        assert_eq!(stream.try_write(&[byte]).unwrap(), 1);
    }

    /// The next byte; `None` when the connection has ended.
    async fn hear(stream: &TcpStream) -> Option<u8> {
        let mut byte = [0];
        loop {
            stream.readable().await.unwrap();
            match stream.try_read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => return Some(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    #[tokio::test]
    async fn faults_do_what_they_say() {
        let proxy = FaultProxy::start(echo().await).await;
        let connect = || TcpStream::connect(proxy.address());
        let first = connect().await.unwrap();
        say(&first, 1).await;
        assert_eq!(hear(&first).await, Some(1));

        proxy.set(Fault::Refuse).await;
        assert_eq!(connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        say(&first, 2).await;
        assert_eq!(hear(&first).await, Some(2), "a connection that stands is not touched");

        proxy.set(Fault::BlackHole).await;
        say(&first, 3).await;
        let second = connect().await.unwrap();
        say(&second, 4).await;
        tokio::select! {
            heard = hear(&first) => panic!("{heard:?}"),
            heard = hear(&second) => panic!("{heard:?}"),
            () = sleep(Duration::from_millis(50)) => {}
        }
        proxy.set(Fault::None).await;
        assert_eq!(hear(&first).await, None, "a connection that has lost bytes is cut");
        assert_eq!(hear(&second).await, None);

        let third = connect().await.unwrap();
        say(&third, 5).await;
        assert_eq!(hear(&third).await, Some(5));
        proxy.cut();
        assert_eq!(hear(&third).await, None);

        proxy.set(Fault::Delay(Duration::from_millis(30))).await;
        let fourth = connect().await.unwrap();
        let begun = std::time::Instant::now();
        say(&fourth, 6).await;
        assert_eq!(hear(&fourth).await, Some(6));
        assert!(begun.elapsed() >= Duration::from_millis(60), "delayed in both directions");

        proxy.set(Fault::None).await;
        proxy.silence();
        say(&fourth, 7).await;
        let fifth = connect().await.unwrap();
        say(&fifth, 8).await;
        assert_eq!(hear(&fifth).await, Some(8), "new connections work");
        tokio::select! {
            heard = hear(&fourth) => panic!("{heard:?}"),
            () = sleep(Duration::from_millis(50)) => {}
        }
        // No process listens on port 1.
        proxy.retarget("127.0.0.1:1".parse().unwrap());
        say(&fifth, 9).await;
        assert_eq!(hear(&fifth).await, Some(9), "a connection that stands is not touched");
        assert_eq!(hear(&connect().await.unwrap()).await, None);
    }

    #[tokio::test]
    async fn the_url_leads_through_the_proxy() {
        let proxy = FaultProxy::start("127.0.0.1:1".parse().unwrap()).await;
        let address = proxy.address();
        assert_eq!(
            proxy.through("amqp://u:p@127.0.0.1:5672/%2f"),
            format!("amqp://u:p@{address}/%2f")
        );
        assert_eq!(proxy.through("redis://127.0.0.1:6379"), format!("redis://{address}"));
    }
}
