use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use super::*;

struct Asleep(Child);

impl Asleep {
    fn start() -> Self {
        let sleep = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn();
        Self(sleep.unwrap())
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn target(pid_file: &Path, program: Option<&str>) -> Target {
    Target {
        signal: Signal::SIGHUP,
        pid_file: pid_file.to_owned(),
        program: program.map(ToOwned::to_owned),
    }
}

#[test]
fn the_process_that_the_file_names_gets_the_signal() {
    let folder = signet_testkit::folder();
    let file = folder.path().join("pid");
    let mut asleep = Asleep::start();
    fs::write(&file, format!("{}\nmore\n", asleep.0.id())).unwrap();
    let other = target(&file, Some("nginx")).send().unwrap_err();
    assert!(matches!(other, SignalError::Other { .. }), "{other}");
    target(&file, Some("sleep")).send().unwrap();
    assert_eq!(asleep.0.wait().unwrap().signal(), Some(1));
    let ended = target(&file, None).send().unwrap_err();
    assert!(matches!(ended, SignalError::Ended { .. }), "{ended}");
}

#[test]
fn a_file_that_is_older_than_its_process_is_stale_and_one_without_a_number_is_none() {
    let folder = signet_testkit::folder();
    let file = folder.path().join("pid");
    let asleep = Asleep::start();
    fs::write(&file, asleep.0.id().to_string()).unwrap();
    let opened = File::options().write(true).open(&file).unwrap();
    opened
        .set_modified(SystemClock.now() - Duration::from_secs(3600))
        .unwrap();
    let stale = target(&file, None).send().unwrap_err();
    assert!(matches!(stale, SignalError::Stale { .. }), "{stale}");
    opened
        .set_modified(SystemClock.now() + Duration::from_secs(3600))
        .unwrap();
    let ahead = target(&file, None).send().unwrap_err();
    assert!(ahead.to_string().contains("give --program"), "{ahead}");
    let other = target(&file, Some("nginx")).send().unwrap_err();
    assert!(matches!(other, SignalError::Other { .. }), "{other}");
    // A clock that was set forward makes every file look so; a name says more than both ages.
    target(&file, Some("sleep")).send().unwrap();
    for text in ["", "0", "-1", "nginx", "99999999999"] {
        fs::write(&file, text).unwrap();
        let none = target(&file, None).send().unwrap_err();
        assert!(matches!(none, SignalError::NoNumber(_)), "{text}: {none}");
    }
    let absent = target(&folder.path().join("absent"), None).send().unwrap_err();
    assert!(matches!(absent, SignalError::File { .. }), "{absent}");
}

#[test]
fn the_user_of_a_process_is_the_one_it_acts_as() {
    let status = "Name:\tUid: 7\nUid:\t1000\t0\t0\t0\nGid:\t1\t2\t3\t4\n";
    assert_eq!(user(status), Some(0));
    assert_eq!(user("Name:\tx\n"), None);
}

mod needs_root {
    use std::os::unix::fs::{chown, lchown, symlink};
    use std::os::unix::process::CommandExt as _;

    use super::*;

    /// Whoever may write the file would have root signal whatever process he likes.
    #[test]
    #[ignore = "needs root: `.ci/step machine` runs it"]
    fn only_root_and_the_processs_user_may_name_it() {
        let folder = signet_testkit::folder();
        let file = folder.path().join("pid");
        let (other, of_root) = (65_533, Asleep::start());
        fs::write(&file, of_root.0.id().to_string()).unwrap();
        let refused = |path: &Path| {
            let refused = target(path, Some("sleep")).send().unwrap_err();
            assert!(
                matches!(
                    refused,
                    SignalError::Owner {
                        owner: 65_533,
                        user: 0,
                        ..
                    }
                ),
                "{refused}"
            );
        };
        let link = folder.path().join("link");
        symlink(&file, &link).unwrap();
        lchown(&link, Some(other), None).unwrap();
        refused(&link);
        chown(&file, Some(other), None).unwrap();
        refused(&file);
        let sleep = Command::new("sleep")
            .arg("600")
            .uid(other)
            .stdin(Stdio::null())
            .spawn();
        let mut of_other = Asleep(sleep.unwrap());
        fs::write(&file, of_other.0.id().to_string()).unwrap();
        target(&file, None).send().unwrap();
        assert_eq!(of_other.0.wait().unwrap().signal(), Some(1));
    }
}

#[test]
fn signals_have_names() {
    assert_eq!(parse_signal("hup"), Ok(Signal::SIGHUP));
    assert_eq!(parse_signal("SIGUSR2"), Ok(Signal::SIGUSR2));
    assert!(parse_signal("KILL").is_err() && parse_signal("1").is_err());
}
