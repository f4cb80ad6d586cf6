//! What a cluster worker has to do with connections, as lines of `describe`.

use super::boxes::Cell;
use super::output::Color;
use super::process::Process;
use serde_json::Value;
use std::collections::HashSet;

/// State `ESTABLISHED` of /proc/net/tcp (proc_pid_net(5)).
const ESTABLISHED: &str = "01";

/// Returns name and value of each figure, address by address.
pub(super) fn rows(process: Process<'_>, addresses: &[Value]) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for address in addresses {
        let is_it = |worker: &&Value| worker["pm_id"] == process.id().0;
        let workers = address["workers"].as_array().map_or(&[][..], Vec::as_slice);
        // During a reload a process has two; the first is on its way out.
        let Some(worker) = workers.iter().rfind(is_it) else {
            continue;
        };
        let mut push = |name: &str, value: String| {
            rows.push(vec![(name.to_owned(), Some(Color::Cyan)), (value, None)]);
        };
        push("address", place(address));
        push("balance", plain(&address["mode"]));
        push("state", plain(&worker["state"]));
        let port = address["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        if let (Some(pid), Some(port)) = (process.pid(), port)
            && let Some(n) = n_established(pid, port)
        {
            push("established", n.to_string());
        }
        match worker["queued"].as_u64() {
            Some(n) => push("queued", n.to_string()),
            None => push("queued (all workers)", plain(&address["queued"])),
        }
        push("handed over", plain(&worker["handed_over"]));
    }
    rows
}

fn place(address: &Value) -> String {
    match (address["address"].as_str(), address["port"].as_u64()) {
        (Some(ip), Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => plain(&address["key"]),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "N/A".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Counts the established TCP connections to this port that a process has open;
/// `None` if its descriptors may not be seen.
fn n_established(pid: u64, port: u16) -> Option<usize> {
    let mut inodes = HashSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[");
        inodes.extend(
            inode
                .and_then(|inode| inode.strip_suffix(']'))
                .map(str::to_owned),
        );
    }
    let mut n = 0;
    for table in ["tcp", "tcp6"] {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        n += text
            .lines()
            .skip(1)
            .filter(|line| is_one(line, port, &inodes))
            .count();
    }
    Some(n)
}

fn is_one(line: &str, port: u16, inodes: &HashSet<String>) -> bool {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1).and_then(|local| local.rsplit_once(':'));
    let is_local = local.is_some_and(|(_, of)| u16::from_str_radix(of, 16) == Ok(port));
    let is_established = fields.nth(1) == Some(ESTABLISHED);
    is_local && is_established && fields.nth(5).is_some_and(|inode| inodes.contains(inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn only_connections_to_the_port_that_the_process_has_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let clients: Vec<_> = (0..3)
            .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
            .collect();
        let served: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
        let pid = u64::from(std::process::id());
        // The third waits in the queue, the clients' own ends are no servers.
        assert_eq!(n_established(pid, port), Some(2));
        drop((clients, served));
    }

    #[test]
    fn a_worker_is_shown_with_the_mode_in_force() {
        let process = serde_json::json!({ "pm_id": 3, "name": "api", "pm2_env": {} });
        let addresses = [serde_json::json!({
            "key": "null:80:4:undefined", "address": "::", "port": 80, "mode": "even+ebpf", "queued": 5,
            "workers": [
                { "pm_id": 2, "state": "live", "queued": 5, "handed_over": 0 },
                { "pm_id": 3, "state": "hung", "queued": 2, "handed_over": 7 },
            ],
        })];
        let texts = |rows: Vec<Vec<Cell>>| -> Vec<String> {
            rows.iter()
                .map(|row| format!("{}={}", row[0].0, row[1].0))
                .collect()
        };
        assert_eq!(
            texts(rows(Process(&process), &addresses)),
            [
                "address=[::]:80",
                "balance=even+ebpf",
                "state=hung",
                "queued=2",
                "handed over=7"
            ]
        );
        let other = serde_json::json!({ "pm_id": 9, "name": "api", "pm2_env": {} });
        assert!(rows(Process(&other), &addresses).is_empty());
    }
}
