//! Scripts that run on the server.

use redis::Cmd;

use super::calls::Calls;

/// A script. It is called by its hash; a server that does not know the hash gets the text.
pub(super) struct Script {
    text: &'static str,
    hash: String,
    pub(super) calls: Calls,
}

impl Script {
    /// `name` identifies the script in metrics.
    pub(super) fn new(name: &'static str, text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned(), calls: Calls::new(name) }
    }

    pub(super) fn by_hash(&self, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        call("EVALSHA", &self.hash, keys, arguments)
    }

    pub(super) fn by_text(&self, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        call("EVAL", self.text, keys, arguments)
    }
}

/// Does not use `redis::Script::invoke_async`, which first copies every key and argument into a
/// vector, and sends a missing script to every node of a cluster.
fn call(command: &str, script: &str, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
    let bytes = keys.iter().map(String::len).chain(arguments.iter().map(Vec::len)).sum::<usize>();
    let mut call = Cmd::with_capacity(3 + keys.len() + arguments.len(), bytes + script.len() + 64);
    call.arg(command).arg(script).arg(keys.len()).arg(keys);
    for argument in arguments {
        call.arg(argument.as_slice());
    }
    call
}
