//! A child process whose two outputs are read all the time, with deadlines on everything.
//!
//! The end of a process is seen by the end of its standard output, so nothing polls. It is killed
//! when its value is dropped, by its own id.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::leaks;

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Behind a lock only so that tests may share a process.
    lines: Mutex<Receiver<String>>,
    seen: Vec<String>,
    errors: Arc<Mutex<String>>,
    errors_end: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
    /// Where a script writes down what it has sent.
    record: Option<PathBuf>,
}

/// How a child ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The code, or none if a signal ended it.
    pub code: Option<i32>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with both outputs captured.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let record = command.get_envs().find(|(variable, _)| *variable == leaks::RECORD);
        let record = record.and_then(|(_, file)| file).map(PathBuf::from);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name} didn't start: {e}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let buffer = Arc::clone(&errors);
        let errors_end = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut buffer = buffer.lock().unwrap();
                buffer.push_str(&String::from_utf8_lossy(&line));
                buffer.push('\n');
            }
        });
        let (lines, seen, errors_end) = (Mutex::new(lines), Vec::new(), Some(errors_end));
        Self { name, child, lines, seen, errors, errors_end, status: None, record }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output; none when it has ended.
    ///
    /// # Panics
    ///
    /// When `deadline` passes first.
    pub fn next_line(&mut self, deadline: Duration) -> Option<String> {
        match self.lines.get_mut().unwrap().recv_timeout(deadline) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line within {deadline:?} from {}", self.report())
            }
        }
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// All of standard error of one that has ended.
    pub fn whole_stderr(&mut self) -> String {
        if let Some(reader) = self.errors_end.take() {
            reader.join().expect("the reader does not panic");
        }
        self.stderr()
    }

    /// Everything said so far, for the message of a failed test.
    #[must_use]
    pub fn report(&self) -> String {
        let (name, id, seen) = (&self.name, self.id(), self.seen.join("\n"));
        format!("{name} ({id})\n--- stdout\n{seen}\n--- stderr\n{}\n---", self.stderr())
    }

    /// Asks it to end (SIGTERM). Does nothing to one that has ended.
    pub fn terminate(&mut self) {
        self.tell(Signal::TERM);
    }

    /// Asks it to read its settings again (SIGHUP). Does nothing to one that has ended.
    pub fn hang_up(&mut self) {
        self.tell(Signal::HUP);
    }

    /// Stops it where it is (SIGSTOP), until it is told to go on. Waits until all of its threads stand still: until
    /// one of them has taken the signal the others run on.
    pub fn suspend(&mut self) {
        self.tell(Signal::STOP);
        if self.is_running() {
            let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            let id = WaitId::Pid(id.expect("a process id"));
            waitid(id, WaitIdOptions::STOPPED).expect("our child stops");
        }
    }

    /// Lets one that was suspended go on (SIGCONT).
    pub fn go_on(&mut self) {
        self.tell(Signal::CONT);
    }

    /// Ends it by this signal, as a fault of its own would, and waits until it is gone.
    pub fn fault(&mut self, signal: Signal) {
        if self.is_running() {
            self.tell(signal);
            self.status = Some(self.child.wait().expect("our child can be waited for"));
        }
    }

    fn tell(&mut self, signal: Signal) {
        if self.is_running() {
            let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            kill_process(id.expect("a process id"), signal).expect("our child can be told");
        }
    }

    /// Ends it without a word (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        if self.is_running() {
            self.child.kill().expect("our child can be killed");
            self.status = Some(self.child.wait().expect("our child can be waited for"));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our child can be asked");
        }
        self.status.is_none()
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// When `deadline` passes first; the process is killed then.
    pub fn wait(&mut self, deadline: Duration) -> Exit {
        let end = Instant::now() + deadline;
        loop {
            match self
                .lines
                .get_mut()
                .unwrap()
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    panic!("still running after {deadline:?}: {}", self.report());
                }
            }
        }
        if self.status.is_none() {
            self.status = Some(self.child.wait().expect("our child can be waited for"));
        }
        if let Some(reader) = self.errors_end.take() {
            reader.join().expect("the reader of stderr doesn't panic");
        }
        if let Some(record) = self.record.take() {
            leaks::remember_record(&record);
        }
        let code = self.status.and_then(|status| status.code());
        let stdout = self.seen.iter().map(|line| format!("{line}\n")).collect();
        Exit { code, stdout, stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command)
    }

    #[test]
    fn an_end_brings_the_code_and_both_outputs() {
        let mut process = shell("echo one; echo two; echo three >&2; exit 3");
        assert_eq!(process.next_line(SOON).as_deref(), Some("one"));
        let exit = process.wait(SOON);
        assert_eq!(exit.code, Some(3));
        assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("one\ntwo\n", "three\n"));
        assert!(!process.is_running());
    }

    #[test]
    fn a_process_can_be_asked_to_end() {
        let mut process = shell("trap 'exit 7' TERM; echo ready; while :; do :; done");
        assert_eq!(process.next_line(SOON).as_deref(), Some("ready"));
        process.terminate();
        assert_eq!(process.wait(SOON).code, Some(7));
    }

    #[test]
    fn a_killed_process_is_gone_and_has_no_code() {
        let mut process = shell("echo ready; while :; do :; done");
        assert_eq!(process.next_line(SOON).as_deref(), Some("ready"));
        assert!(process.is_running());
        process.kill();
        process.kill();
        assert!(!process.is_running());
        assert_eq!(process.wait(SOON).code, None);
    }

    #[test]
    #[should_panic(expected = "still running after")]
    fn a_process_that_goes_on_is_killed_at_the_deadline() {
        shell("echo stuck >&2; while :; do :; done").wait(Duration::from_millis(50));
    }
}
