//! The addresses of a set of servers, as values and as lines of a file.

/// Where the servers of a set listen, passwords included. A server that was not chosen has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Urls {
    /// `redis://127.0.0.1:PORT`
    pub redis: Option<String>,
    /// `redis+cluster://127.0.0.1:PORT`
    pub redis_cluster: Option<String>,
    /// `mysql://USER:PASSWORD@127.0.0.1:PORT/flashsale`, with all rights in that database.
    pub mysql: Option<String>,
    /// `mysql://ADMIN:PASSWORD@127.0.0.1:PORT`, with all rights; append `/DATABASE` to use one.
    pub mysql_admin: Option<String>,
    /// `amqp://USER:PASSWORD@127.0.0.1:PORT/%2f`
    pub amqp: Option<String>,
}

impl Urls {
    fn fields(&mut self) -> [(&'static str, &mut Option<String>); 5] {
        [
            ("redis", &mut self.redis),
            ("redis_cluster", &mut self.redis_cluster),
            ("mysql", &mut self.mysql),
            ("mysql_admin", &mut self.mysql_admin),
            ("amqp", &mut self.amqp),
        ]
    }

    pub(crate) fn to_lines(&self) -> String {
        self.clone()
            .fields()
            .into_iter()
            .filter_map(|(name, url)| Some(format!("{name}={}\n", url.as_ref()?)))
            .collect()
    }

    pub(crate) fn from_lines(text: &str) -> Option<Self> {
        let mut urls = Self::default();
        for line in text.lines() {
            let (name, url) = line.split_once('=')?;
            for (field, slot) in urls.fields() {
                if field == name {
                    *slot = Some(url.to_owned());
                }
            }
        }
        Some(urls)
    }
}
