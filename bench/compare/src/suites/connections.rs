//! Many connections: the old architectures, and the memory of idle ones.
use super::*;

/// Seconds that a measurement of an old architecture takes beside its window,
/// at so many connections: making them, and for those that serve only some,
/// waiting in vain.
const OLD: [(usize, f64); 5] = [(1, 0.1), (10, 0.2), (100, 0.4), (1000, 1.2), (10_000, 4.0)];

const OLD_QUICK: [(usize, f64); 2] = [OLD[1], OLD[3]];

impl Bench {
    fn old_cells(&self) -> &'static [(usize, f64)] {
        if self.quick { &OLD_QUICK } else { &OLD }
    }

    fn old_size(&self) -> Size {
        let of = |rounds, seconds| Size { rounds, seconds };
        self.size(of(3, 0.1), of(7, 0.3))
    }

    fn old_servers(&self) -> Vec<Server> {
        let mut servers = self.some(&["old", "isochrome"]);
        // Each driver once: variants of the read call are the echo suite's.
        let mut seen = Vec::new();
        servers.retain(|s| {
            let is_new = s.group == "old" || !seen.contains(&s.io);
            seen.push(s.io.clone());
            is_new
        });
        servers.sort_by_key(|s| s.group != "isochrome");
        servers
    }

    pub fn old_seconds(&self) -> f64 {
        let (size, servers) = (self.old_size(), self.old_servers().len());
        let cells = self.old_cells().iter();
        let each = cells.map(|(_, beside)| size.seconds * 1.25 + beside);
        (servers * size.rounds) as f64 * each.sum::<f64>()
    }

    /// The old architectures and Isochrome, speaking the delimited protocol.
    ///
    /// Clients come and go: 10 round trips, then a new connection, whose first
    /// latency includes the connect. With clients that stay, a sequential
    /// server would serve one for ever and the others never.
    pub fn old(&mut self) {
        let (servers, size) = (self.old_servers(), self.old_size());
        let rows = rows(&servers);
        let bar = self.bar(self.old_cells().len() * rows.len() * size.rounds);
        for &(connections, beside) in self.old_cells() {
            if STOP.load(Ordering::Relaxed) {
                break;
            }
            let setup = if self.quick { "1" } else { "5" };
            let load = Load {
                args: ["--session", "10", "--setup-timeout", setup, "--connections"]
                    .into_iter()
                    .map(str::to_owned)
                    .chain([connections.to_string()])
                    .collect(),
                seconds: size.seconds,
                protocol: "delimited",
            };
            let seconds = (rows.len() * size.rounds) as f64 * (size.seconds * 1.25 + beside);
            let cell = format!("C={connections}");
            let plan = Plan {
                suite: "old",
                cell: &cell,
                rounds: size.rounds,
                deadline: self.deadline(seconds),
                has_base: false,
                ratios: |_| false,
                twin: None,
                bar: &bar,
            };
            let this = &*self;
            let done = rounds::run(plan, &rows, |i| {
                let (report, had) = this.load(&servers[i], &load)?;
                Ok(of_report(&report, had, false))
            });
            self.keep(size.rounds, done);
        }
        bar.finish_and_clear();
    }

    fn idle_size(&self) -> Size {
        let of = |rounds, seconds| Size { rounds, seconds };
        // Bytes hardly vary, and nobody else's work changes them.
        self.size(of(1, 0.1), of(3, 0.1))
    }

    fn idle_connections(&self) -> u64 {
        if self.quick { 2000 } else { 10_000 }
    }

    pub fn idle_seconds(&self) -> f64 {
        let servers = self.some(&["floor", "peer", "isochrome"]).len();
        let each = 0.2 + 1.5e-4 * self.idle_connections() as f64;
        (servers * self.idle_size().rounds) as f64 * each
    }

    /// Memory of the server's own that an idle connection holds.
    pub fn idle(&mut self) {
        let (idle, size) = (self.idle_connections(), self.idle_size());
        let servers = self.some(&["floor", "peer", "isochrome"]);
        let rows = rows(&servers);
        let bar = self.bar(rows.len() * size.rounds);
        let load = Load {
            args: vec!["--idle".into(), idle.to_string()],
            seconds: size.seconds,
            protocol: "echo",
        };
        let cell = format!("{idle} idle");
        let plan = Plan {
            suite: "idle",
            cell: &cell,
            rounds: size.rounds,
            deadline: self.deadline(self.idle_seconds()),
            has_base: false,
            ratios: |_| false,
            twin: None,
            bar: &bar,
        };
        let this = &*self;
        let done = rounds::run(plan, &rows, |i| {
            let (r, had) = this.load(&servers[i], &load)?;
            if r.clients.idle < idle {
                bail!("{} of {idle} idle connections were served", r.clients.idle);
            }
            let (Some(after), Some(before)) = (r.server, r.server_before_idle) else {
                bail!("no figures of the server");
            };
            let bytes = after.rss_anon.saturating_sub(before.rss_anon) as f64;
            let figures = [
                ("bytes_per_connection", bytes / idle as f64),
                ("before_mib", before.rss_anon as f64 / 1048576.0),
            ];
            Ok(Measured {
                figures: figures
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect(),
                disturbance: None,
                ..of_report(&r, had, true)
            })
        });
        bar.finish_and_clear();
        self.keep(size.rounds, done);
    }
}
