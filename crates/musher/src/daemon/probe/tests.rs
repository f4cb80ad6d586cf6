//! The executor against servers that behave, and servers that do not.

use super::*;
use musher_core::app::Balance;
use musher_core::supervisor::action::{AppKey, Channel, Output};
use std::io::{Read, Write};
use std::time::Instant;
use tokio::sync::mpsc::unbounded_channel;

const RUN: Incarnation = Incarnation(7);
const LIMIT: Duration = Duration::from_millis(400);
/// What a loaded machine may add to a limit.
const SLACK: Duration = Duration::from_secs(10);

/// Serves connections, one after the other, until the test ends.
fn serve(behave: impl Fn(std::net::TcpStream) + Send + 'static) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            behave(stream.unwrap());
        }
    });
    port
}

/// Reads a request's head and returns it.
fn request_of(stream: &mut std::net::TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Serves these bytes to every request.
fn serve_bytes(bytes: impl Into<Vec<u8>>) -> u16 {
    let bytes = bytes.into();
    serve(move |mut stream| {
        request_of(&mut stream);
        // The probe may have left before the end of them.
        let _ = stream.write_all(&bytes);
    })
}

fn http(port: u16) -> Check {
    Check::Http(HttpCheck {
        host: "127.0.0.1".to_owned(),
        port,
        path: "/healthz".to_owned(),
        headers: Vec::new(),
    })
}

fn tcp(port: u16) -> Check {
    Check::Tcp {
        host: "localhost".to_owned(),
        port,
    }
}

fn plan(argv: &[&str]) -> SpawnPlan {
    SpawnPlan {
        app: AppKey {
            namespace: "default".to_owned(),
            name: "app".to_owned(),
        },
        slot: 0,
        balance: Balance::Even,
        sticky: None,
        program: argv[0].to_owned(),
        args: argv[1..].iter().map(|word| (*word).to_owned()).collect(),
        env: vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("GREETING".to_owned(), "hello".to_owned()),
        ],
        cwd: "/".to_owned(),
        run_as: None,
        channel: Channel::Fork,
        listen: Vec::new(),
        output: Output::default(),
        pid_path: String::new(),
        script: String::new(),
    }
}

fn question(check: Check, way: Way, timeout: Duration) -> Question {
    Question {
        run: RUN,
        kind: ProbeKind::Readiness,
        check,
        timeout,
        way,
    }
}

fn command(argv: &[&str], timeout: Duration) -> Question {
    let check = Check::Exec {
        command: argv.iter().map(|word| (*word).to_owned()).collect(),
    };
    question(check, Way::Command(Box::new(plan(argv))), timeout)
}

/// Runs the test's own loop.
fn in_loop<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Asks each question at the same time; returns the answers in the order of the
/// questions.
fn ask_all(questions: Vec<Question>) -> Vec<Result<(), String>> {
    in_loop(async {
        let mut answers = Vec::new();
        for question in questions {
            let (events, mut inbox) = unbounded_channel();
            let limit = question.timeout + SLACK;
            let mut prober = Prober::new(events, Scout::start().unwrap());
            prober.ask(question);
            answers.push(async move {
                let event = tokio::time::timeout(limit, inbox.recv()).await;
                drop(prober);
                let Ok(Some(Event::Probed { run, kind, outcome })) = event else {
                    panic!("no answer but {event:?}");
                };
                assert_eq!((run, kind), (RUN, ProbeKind::Readiness));
                assert_eq!(inbox.recv().await, None, "one answer");
                outcome
            });
        }
        let mut outcomes = Vec::new();
        for answer in answers {
            outcomes.push(answer.await);
        }
        outcomes
    })
}

fn ask(question: Question) -> Result<(), String> {
    ask_all(vec![question]).remove(0)
}

fn get(port: u16) -> Result<(), String> {
    ask(question(http(port), Way::Address, SLACK))
}

#[test]
fn a_status_from_200_to_399_is_well() {
    for status in [
        "200 OK",
        "204 No Content",
        "302 Found\r\nLocation: /elsewhere",
        "399 x",
    ] {
        let port = serve_bytes(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(get(port), Ok(()), "{status}");
    }
    for (status, code) in [
        ("500 Oh", 500),
        ("404 Not Found", 404),
        ("101 Switching", 101),
    ] {
        let port = serve_bytes(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        let reason = format!("GET http://127.0.0.1:{port}/healthz answered {code}");
        assert_eq!(get(port), Err(reason));
    }
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3);
    let port = serve_bytes(format!("{early}HTTP/1.0 200 OK\r\n\r\nbody"));
    assert_eq!(get(port), Ok(()));
}

#[test]
fn the_question_is_what_was_declared() {
    let (tell, heard) = std::sync::mpsc::channel();
    let port = serve(move |mut stream| {
        tell.send(request_of(&mut stream)).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    });
    let Check::Http(check) = http(port) else {
        unreachable!()
    };
    let with_headers = HttpCheck {
        headers: vec![
            ("host".to_owned(), "shop".to_owned()),
            ("X-A".to_owned(), "1".to_owned()),
        ],
        ..check.clone()
    };
    for check in [check, with_headers] {
        assert_eq!(
            ask(question(Check::Http(check), Way::Address, SLACK)),
            Ok(())
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    let plain = heard.recv().unwrap();
    assert_eq!(
        plain,
        format!(
            "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: musher/{version} probe\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        )
    );
    let with_headers = heard.recv().unwrap();
    assert!(
        with_headers.contains("\r\nhost: shop\r\nX-A: 1\r\n"),
        "{with_headers}"
    );
    assert!(!with_headers.contains("127.0.0.1"), "{with_headers}");
}

#[test]
fn every_way_to_answer_badly_is_said() {
    let closes = serve(drop);
    let half = serve_bytes("HTTP/1.1 200 OK\r\nServer: x");
    let garbage = serve_bytes("SSH-2.0-OpenSSH_9.6\r\n\r\n");
    let huge = serve_bytes(format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
        "x".repeat(100_000)
    ));
    let fields = serve_bytes(format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200)));
    let interim = serve_bytes("HTTP/1.1 100 Continue\r\n\r\n".repeat(100));
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    for (port, words) in [
        // Reset or closed: both happen, as the request arrives before or after.
        (
            closes,
            vec![
                "failed: the connection was closed without an answer",
                "failed: connection reset by peer (ECONNRESET)",
                "failed: broken pipe (EPIPE)",
            ],
        ),
        (
            half,
            vec!["failed: the connection was closed within the answer"],
        ),
        (
            garbage,
            vec!["was not answered in HTTP: invalid HTTP version"],
        ),
        (huge, vec!["answered with a head of over 32768 bytes"]),
        (fields, vec!["was not answered in HTTP: too many headers"]),
        (interim, vec!["was answered with interim statuses only"]),
        (nobody, vec!["failed: connection refused (ECONNREFUSED)"]),
    ] {
        let reason = get(port).unwrap_err();
        let about = format!("GET http://127.0.0.1:{port}/healthz ");
        let said = reason.strip_prefix(&about).unwrap_or(&reason);
        assert!(words.contains(&said), "{reason}");
    }
}

#[test]
fn an_answer_that_does_not_come_is_given_up_in_time() {
    let never = serve(|mut stream| {
        request_of(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let slow = serve(|mut stream| {
        request_of(&mut stream);
        for byte in b"HTTP/1.1 200 OK\r\nX: a head that takes its time\r\n\r\n" {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    // Nobody accepts: the queue of a listener takes the connection.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stuck = listener.local_addr().unwrap().port();
    let began = Instant::now();
    let ports = [never, slow, stuck];
    let questions = ports.map(|port| question(http(port), Way::Address, LIMIT));
    for (port, answer) in ports.into_iter().zip(ask_all(questions.into())) {
        let reason = format!("GET http://127.0.0.1:{port}/healthz was not answered within 400 ms");
        assert_eq!(answer, Err(reason));
    }
    assert!(began.elapsed() >= LIMIT);
}

#[test]
fn a_connection_that_is_accepted_is_well() {
    let port = serve(drop);
    assert_eq!(ask(question(tcp(port), Way::Address, SLACK)), Ok(()));
    let v6 = std::net::TcpListener::bind("[::1]:0").unwrap();
    let port = v6.local_addr().unwrap().port();
    assert_eq!(ask(question(tcp(port), Way::Address, SLACK)), Ok(()));
    drop(v6);
    let reason = ask(question(tcp(port), Way::Address, SLACK)).unwrap_err();
    let expected =
        format!("a connection to localhost:{port} failed: connection refused (ECONNREFUSED)");
    assert_eq!(reason, expected);
}

#[test]
fn a_command_that_ends_with_0_is_well_and_any_other_tells_its_last_line() {
    assert_eq!(ask(command(&["true"], SLACK)), Ok(()));
    let script = "echo first; echo $GREETING from $PWD; echo; exit 3";
    let reason = ask(command(&["sh", "-c", script], SLACK)).unwrap_err();
    assert_eq!(
        reason,
        format!("sh -c {script} ended with exit 3: hello from /")
    );
    let reason = ask(command(&["sh", "-c", "kill -9 $$"], SLACK)).unwrap_err();
    assert_eq!(reason, "sh -c kill -9 $$ ended with SIGKILL");
    let loud = "yes line | head -c 300000; echo last >&2; exit 1";
    let reason = ask(command(&["sh", "-c", loud], SLACK)).unwrap_err();
    assert!(reason.ends_with("ended with exit 1: last"), "{reason}");
    let reason = ask(command(&["no-such-program"], SLACK)).unwrap_err();
    assert!(
        reason.starts_with("cannot find no-such-program: "),
        "{reason}"
    );
    let reason = ask(command(&["/etc/passwd"], SLACK)).unwrap_err();
    assert!(
        reason.starts_with("cannot execute /etc/passwd: permission denied"),
        "{reason}"
    );
}

#[test]
fn a_command_has_a_session_of_its_own_and_no_descriptor_of_ours() {
    let _held = std::fs::File::open("/dev/null").unwrap();
    let script = "import os,sys\n\
                  held=[f for f in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/'+f)]\n\
                  print(os.getsid(0)==os.getpid(), sorted(held), sys.stdin.read()=='')\n\
                  sys.exit(1)\n";
    let reason = ask(command(&["python3", "-c", script], SLACK)).unwrap_err();
    assert!(reason.ends_with(": True ['0', '1', '2'] True"), "{reason}");
}

fn is_alive(pid: u32) -> bool {
    musher_os::proc_stat::read(pid).is_ok_and(|stat| stat.state != b'Z')
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SLACK;
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A command that writes the pids of itself and its child, and goes on for ever.
fn for_ever(dir: &std::path::Path) -> (Question, std::path::PathBuf) {
    let pids = dir.join("pids");
    let script =
        "trap '' INT TERM; sleep 1000 & echo $$ $! > $0.new; mv $0.new $0; echo still here; wait";
    let argv = ["sh", "-c", script, pids.to_str().unwrap()];
    (command(&argv, SLACK * 3), pids)
}

fn pids_in(path: &std::path::Path) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace()
        .map(|pid| pid.parse().ok())
        .collect()
}

#[test]
fn a_command_that_does_not_end_is_killed_with_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (question, path) = for_ever(dir.path());
    in_loop(async {
        let (events, mut inbox) = unbounded_channel();
        let mut prober = Prober::new(events, Scout::start().unwrap());
        prober.ask(Question {
            timeout: Duration::from_secs(2),
            ..question
        });
        let Some(Event::Probed { outcome, .. }) = inbox.recv().await else {
            panic!("no answer")
        };
        let reason = outcome.unwrap_err();
        assert!(
            reason.ends_with(" did not end within 2000 ms: still here"),
            "{reason}"
        );
        let pids = pids_in(&path).unwrap();
        until("the end of the tree", || {
            !pids.iter().any(|pid| is_alive(*pid))
        })
        .await;
        let main = pids[0];
        until("the reaping", || musher_os::proc_stat::read(main).is_err()).await;
    });
}

#[test]
fn what_is_forgotten_is_not_answered_and_its_command_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (question, path) = for_ever(dir.path());
    let port = serve(|mut stream| {
        request_of(&mut stream);
        // Until the probe leaves.
        let _ = stream.read(&mut [0]);
    });
    in_loop(async {
        let (events, mut inbox) = unbounded_channel();
        let mut prober = Prober::new(events, Scout::start().unwrap());
        prober.ask(question);
        prober.ask(super::tests::question(http(port), Way::Address, SLACK * 3));
        until("the command", || pids_in(&path).is_some()).await;
        prober.forget(RUN);
        let pids = pids_in(&path).unwrap();
        until("the end of the tree", || {
            !pids.iter().any(|pid| is_alive(*pid))
        })
        .await;
        drop(prober);
        assert_eq!(inbox.recv().await, None);
    });
}
