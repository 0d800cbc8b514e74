//! What the operating system says about this process, under Prometheus' standard names.
//!
//! Must not know: anything of the proxy. Source: proc(5); on systems without /proc nothing is reported.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::{Counter, Gauge, IntGauge, proto::MetricFamily};

/// Clock ticks per second in /proc/self/stat: USER_HZ, 100 on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads /proc/self at every scrape.
pub struct ProcessCollector {
    cpu: Counter,
    resident: IntGauge,
    open_fds: IntGauge,
    threads: IntGauge,
    start_time: Gauge,
}

impl ProcessCollector {
    /// A collector whose process started now.
    pub fn new() -> prometheus::Result<Self> {
        let start_time =
            Gauge::new("process_start_time_seconds", "Start time, in seconds since the Unix epoch.")?;
        start_time.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time spent, in seconds.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory, in bytes.")?,
            open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            threads: IntGauge::new("process_threads", "Threads.")?,
            start_time,
        })
    }

    fn parts(&self) -> [&dyn Collector; 5] {
        [&self.cpu, &self.resident, &self.open_fds, &self.threads, &self.start_time]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(seconds) =
            std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds)
        {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            self.resident.set(status_field(&status, "VmRSS:").unwrap_or(0) * 1024);
            self.threads.set(status_field(&status, "Threads:").unwrap_or(0));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
        self.parts().into_iter().flat_map(|part| part.collect()).collect()
    }
}

/// What this process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time in user mode and in the kernel, in seconds.
    pub cpu_seconds: (f64, f64),
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most resident memory so far, in bytes.
    pub peak: u64,
    /// Memory of the machine, in bytes.
    pub machine: u64,
}

impl Usage {
    /// Asks the system; what it does not say is zero.
    pub fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (stat, status, machine) =
            (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/meminfo"));
        let ticks = |field: usize| {
            let (_, fields) = stat.rsplit_once(')')?;
            fields.split_whitespace().nth(field)?.parse::<f64>().ok()
        };
        let cpu = |field| ticks(field).unwrap_or(0.0) / TICKS_PER_SECOND;
        let kb = |text: &str, name| status_field(text, name).map_or(0, |kb| kb.unsigned_abs() * 1024);
        Self {
            cpu_seconds: (cpu(11), cpu(12)),
            resident: kb(&status, "VmRSS:"),
            peak: kb(&status, "VmHWM:"),
            machine: kb(&machine, "MemTotal:"),
        }
    }
}

/// User plus system time: fields 14 and 15, counted from behind the program's name, which may contain spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn status_field(status: &str, name: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_formats() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 5 0 1000 1000000 300";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (a"), None);
        assert_eq!(status_field("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234));
        assert_eq!(status_field("Name:\tx\n", "VmRSS:"), None);
    }
}
