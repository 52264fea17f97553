//! CPU per round trip, throughput and latency of an echo, beside the floor.
use super::*;

/// What a measurement takes beside its window and its warm-up: two processes,
/// the connections, two pauses, the end. Seen: 0.05 s, and 0.1 ms a connection.
const BESIDE: f64 = 0.05;

/// The ratios that tables show.
fn is_ratio(metric: &str) -> bool {
    ["cpu_ns", "per_second", "p50_us", "p99_us"].contains(&metric)
}

impl Bench {
    fn echo_size(&self) -> Size {
        let (quick, full) = ((9, 0.1), (19, 0.1));
        let of = |(rounds, seconds)| Size { rounds, seconds };
        self.size(of(quick), of(full))
    }

    fn echo_cells(&self) -> &'static [(usize, usize)] {
        const ALL: [(usize, usize); 6] = [
            (64, 64),
            (1, 64),
            (1000, 64),
            (1, 4096),
            (64, 4096),
            (1000, 4096),
        ];
        if self.quick { &ALL[..1] } else { &ALL }
    }

    /// The base, the others, and the base again.
    fn echo_servers(&self) -> Vec<Server> {
        let mut servers = self.some(&["floor", "peer", "isochrome"]);
        servers.extend(servers.first().map(again));
        servers
    }

    pub fn echo_seconds(&self) -> f64 {
        let size = self.echo_size();
        let count = rounds::measurements(self.echo_servers().len(), true, size.rounds);
        let cells = self.echo_cells().iter();
        cells.map(|&(c, _)| count as f64 * each(size, c)).sum()
    }

    pub fn echo(&mut self) {
        let servers = self.echo_servers();
        self.echoes("echo", self.echo_cells(), &servers, self.echo_size());
    }

    /// A server, the same again, and the same with handicaps: the yardstick has
    /// to see the handicaps, and no difference where there is none.
    fn handicap_servers(&self) -> Vec<Server> {
        let slow: Vec<&Server> = self.servers.iter().filter(|s| s.handicap).collect();
        let Some(first) = slow.first() else {
            return Vec::new();
        };
        let same = |s: &&Server| s.package == first.package && s.io == first.io && !s.handicap;
        let Some(base) = self.servers.iter().find(same) else {
            return Vec::new();
        };
        let mut servers = vec![base.clone()];
        servers.extend(slow.into_iter().cloned());
        servers.push(again(base));
        servers
    }

    fn handicap_size(&self) -> Size {
        let (rounds, seconds) = (301, 0.1);
        let size = Size { rounds, seconds };
        self.size(size, size)
    }

    pub fn handicap_seconds(&self) -> f64 {
        let size = self.handicap_size();
        let count = rounds::measurements(self.handicap_servers().len(), true, size.rounds);
        count as f64 * each(size, 64)
    }

    pub fn handicap(&mut self) {
        let servers = self.handicap_servers();
        if servers.is_empty() {
            let why = "handicap: no server in the catalogue has one, or none is built without";
            self.notes.push(why.into());
        }
        self.echoes("handicap", &[(64, 64)], &servers, self.handicap_size());
    }

    fn echoes(&mut self, suite: &str, cells: &[(usize, usize)], servers: &[Server], size: Size) {
        if servers.is_empty() {
            return;
        }
        let rows = rows(servers);
        let bar = self.bar(cells.len() * rounds::measurements(rows.len(), true, size.rounds));
        for &(connections, bytes) in cells {
            if STOP.load(Ordering::Relaxed) {
                break;
            }
            let load = Load {
                args: [
                    "--connections",
                    &connections.to_string(),
                    "--size",
                    &bytes.to_string(),
                ]
                .map(str::to_owned)
                .into(),
                seconds: size.seconds,
                protocol: "echo",
            };
            let count = rounds::measurements(rows.len(), true, size.rounds);
            let seconds = count as f64 * each(size, connections);
            let cell = format!("C={connections} {bytes} B");
            let plan = Plan {
                suite,
                cell: &cell,
                rounds: size.rounds,
                deadline: self.deadline(seconds),
                has_base: true,
                ratios: is_ratio,
                twin: Some(rows.len() - 1),
                bar: &bar,
            };
            let this = &*self;
            let done = rounds::run(plan, &rows, |i| {
                let (report, had) = this.load(&servers[i], &load)?;
                if report.round_trips == 0 {
                    bail!("no round trip in the window");
                }
                let served = report.clients.served_in_window;
                if served < connections as u64 {
                    bail!("served {served} of {connections}");
                }
                Ok(of_report(&report, had, true))
            });
            self.keep(size.rounds, done);
        }
        bar.finish_and_clear();
    }
}

fn again(base: &Server) -> Server {
    Server {
        name: format!("{} again", base.name),
        ..base.clone()
    }
}

fn each(size: Size, connections: usize) -> f64 {
    size.seconds * 1.25 + BESIDE + 1e-4 * connections as f64
}
