//! Where io_uring is refused, or the user says which driver: child processes,
//! because a seccomp filter stays, and the environment is everybody's.

mod common;

use std::io;
use std::process::{Command, Output};

use isochrome::{Builder, DriverChoice, Runtime};

/// Tells the test binary to be the child, and which.
const CHILD: &str = "ISOCHROME_TEST_CHILD";
const DRIVER: &str = "ISOCHROME_DRIVER";

/// Runs the test `name` again in a process of its own.
fn child(name: &str, role: &str, driver: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this test has a path"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, role).env_remove(DRIVER);
    if let Some(driver) = driver {
        command.env(DRIVER, driver);
    }
    let output = command.output().expect("the child starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{role}: {output:?}");
    assert!(text.contains("1 passed"), "the child ran nothing: {text}");
    output
}

fn role() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// What the library said on standard error.
fn said(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().map(str::to_owned).collect()
}

/// From now on this thread, and the threads that it starts, get `errno` for
/// the system call `nr`.
fn refuse(nr: libc::c_long, errno: libc::c_int) {
    const fn statement(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        }
    }
    // seccomp(2): the number of the system call is the first word of the data.
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, nr as u32, 0, 1),
        statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno as u32,
            0,
            0,
        ),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: no pointer is passed.
    let answer = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel copies the program during the call.
    let answer = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
}

/// What a runtime has to do whichever driver it has.
fn works(rt: &Runtime) {
    rt.block_on(async {
        let (near, far) = common::pair().await;
        near.send_all("works").await.0.unwrap();
        assert_eq!(*far.recv().await.unwrap(), *b"works");
    });
}

fn refused(name: &str, nr: libc::c_long, errno: libc::c_int, hint: &str) {
    let Some(role) = role() else {
        let auto = said(&child(name, "auto", None));
        assert_eq!(auto.len(), 1, "one line: {auto:#?}");
        assert!(auto[0].starts_with("isochrome: using epoll: "), "{auto:?}");
        assert!(auto[0].contains(hint), "{auto:?}");
        assert_eq!(said(&child(name, "auto", Some("auto"))).len(), 1);
        assert!(said(&child(name, "forced", None)).is_empty());
        assert!(said(&child(name, "variable", Some("proactor"))).is_empty());
        // Who wants epoll is told nothing.
        assert!(said(&child(name, "reactor", Some("reactor"))).is_empty());
        return;
    };
    refuse(nr, errno);
    let number = format!("os error {errno}");
    match role.as_str() {
        "auto" => {
            for workers in [1, 4] {
                let rt = Builder::new().workers(workers).build().unwrap();
                assert_eq!(rt.driver(), "reactor");
                let why = rt.fallback().expect("it says why").to_string();
                assert!(why.contains(&number) && why.contains(hint), "{why}");
                works(&rt);
            }
        }
        "forced" | "variable" => {
            let choice = match role.as_str() {
                "forced" => DriverChoice::Proactor,
                _ => DriverChoice::Auto,
            };
            let error = Builder::new().driver(choice).build().unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&number) && text.contains(hint), "{text}");
            // Forced by code, epoll is there all the same.
            let rt = Builder::new()
                .driver(DriverChoice::Reactor)
                .build()
                .unwrap();
            assert!(rt.fallback().is_none());
            works(&rt);
        }
        _ => {
            let rt = Runtime::new().unwrap();
            assert_eq!(rt.driver(), "reactor");
            assert!(rt.fallback().is_none(), "it was not free to choose");
            works(&rt);
        }
    }
}

#[test]
fn setup_is_not_permitted() {
    let nr = libc::SYS_io_uring_setup;
    refused("setup_is_not_permitted", nr, libc::EPERM, "seccomp");
}

#[test]
fn setup_is_not_there() {
    let nr = libc::SYS_io_uring_setup;
    refused("setup_is_not_there", nr, libc::ENOSYS, "without io_uring");
}

#[test]
fn setup_is_denied() {
    let nr = libc::SYS_io_uring_setup;
    refused("setup_is_denied", nr, libc::EACCES, "seccomp");
}

#[test]
fn setup_is_not_supported() {
    let nr = libc::SYS_io_uring_setup;
    refused("setup_is_not_supported", nr, libc::EOPNOTSUPP, "epoll");
}

#[test]
fn enter_is_not_permitted() {
    let nr = libc::SYS_io_uring_enter;
    refused("enter_is_not_permitted", nr, libc::EPERM, "seccomp");
}

#[test]
fn register_is_not_permitted() {
    let nr = libc::SYS_io_uring_register;
    refused("register_is_not_permitted", nr, libc::EPERM, "seccomp");
}

#[test]
fn the_environment_names_the_driver() {
    let name = "the_environment_names_the_driver";
    let Some(role) = role() else {
        for driver in ["reactor", "proactor", "auto"] {
            let said = said(&child(name, driver, Some(driver)));
            println!("{driver}: {said:?}");
        }
        child(name, "nonsense", Some("nonsense"));
        return;
    };
    let built = Runtime::new();
    match role.as_str() {
        "nonsense" => {
            let error = built.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let text = error.to_string();
            for part in [DRIVER, "`nonsense`", "reactor", "proactor"] {
                assert!(text.contains(part), "{text}");
            }
        }
        "proactor" if !common::works(DriverChoice::Proactor) => {
            assert!(built.is_err());
        }
        "auto" => works(&built.unwrap()),
        driver => {
            let rt = built.unwrap();
            assert_eq!(rt.driver(), driver);
            works(&rt);
            // What the code says counts for more.
            let rt = Builder::new().driver(DriverChoice::Reactor).build();
            assert_eq!(rt.unwrap().driver(), "reactor");
        }
    }
}

/// A variable that is no text names no driver either.
#[test]
fn a_variable_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let name = "a_variable_that_is_no_text_is_an_error";
    if role().is_none() {
        let exe = std::env::current_exe().unwrap();
        let output = Command::new(exe)
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "child")
            .env(DRIVER, std::ffi::OsStr::from_bytes(b"react\xffor"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let error = Runtime::new().expect_err("it names no driver");
    assert!(error.to_string().contains(DRIVER), "{error}");
}
