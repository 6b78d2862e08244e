//! Where log lines go: a thread that writes, behind a queue that never makes anybody wait.
//!
//! A reader that stopped, a full disk or a closed pipe costs lines, which are counted, and
//! nothing else. A file that was moved away is opened anew under its name.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The most bytes of lines that wait for one sink; above it a new line is lost.
pub const WAITING_BYTES_MAX: usize = 4 << 20;
/// Between two looks whether a file is still under its name.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A way out for lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Held for a push or a take, never across a write.
    state: Mutex<State>,
    arrived: Condvar,
    emptied: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    is_writing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.bytes + line.len() > WAITING_BYTES_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        drop(state);
        self.arrived.notify_one();
    }

    /// Writes for ever. What waits counts until it is written, so that the bound holds while a
    /// write hangs.
    fn run(&self, mut target: Target) {
        let mut is_torn = false;
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() {
                state.is_writing = false;
                self.emptied.notify_all();
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_writing = true;
            let lines = std::mem::take(&mut state.lines);
            drop(state);
            for line in lines {
                if target.write(&line, &mut is_torn).is_err() {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                self.lock().bytes -= line.len();
            }
        }
    }
}

impl Sink {
    /// Writes to standard error.
    ///
    /// # Errors
    /// No thread could be had.
    pub fn standard_error() -> io::Result<Self> {
        Self::start(Target::StandardError)
    }

    /// Writes to the end of a file, which only its owner may read if it is made.
    ///
    /// # Errors
    /// The file can't be opened, or no thread could be had.
    pub fn file(path: &Path) -> io::Result<Self> {
        Self::start(Target::File(Reopened::open(path)?))
    }

    /// Writes wherever `writer` does.
    ///
    /// # Errors
    /// No thread could be had.
    #[cfg(test)]
    pub(super) fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start(Target::Other(Box::new(writer)))
    }

    fn start(target: Target) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let own = Arc::clone(&queue);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || own.run(target))?;
        Ok(Self(queue))
    }

    /// How many lines were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but no longer than `deadline`. Says whether it is.
    #[must_use]
    pub fn finish(&self, deadline: Duration) -> bool {
        let waits = |state: &mut State| !state.lines.is_empty() || state.is_writing;
        let state = self.0.lock();
        let waited = self.0.emptied.wait_timeout_while(state, deadline, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !waits(&mut state)
    }
}

/// One line at a time.
#[derive(Debug)]
pub struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

enum Target {
    StandardError,
    File(Reopened),
    #[cfg(test)]
    Other(Box<dyn Write + Send>),
}

impl Target {
    /// `is_torn` says whether the line before ended in its middle.
    fn write(&mut self, line: &[u8], is_torn: &mut bool) -> io::Result<()> {
        match self {
            Self::StandardError => write_line(&mut io::stderr(), line, is_torn),
            Self::File(file) => write_line(file.current()?, line, is_torn),
            #[cfg(test)]
            Self::Other(writer) => write_line(writer, line, is_torn),
        }
    }
}

/// A disk that is full takes the beginning of a line and then nothing: what comes next begins on a
/// line of its own, or whoever reads could make sense of neither.
fn write_line(out: &mut impl Write, line: &[u8], is_torn: &mut bool) -> io::Result<()> {
    if *is_torn {
        out.write_all(b"\n")?;
        *is_torn = false;
    }
    let mut rest = line;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                rest = rest.get(n..).unwrap_or_default();
                *is_torn = !rest.is_empty();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file that is looked for under its name now and then, so that whoever rotates logs only has
/// to move it away.
struct Reopened {
    path: PathBuf,
    file: File,
    looked_at: Instant,
}

impl Reopened {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, looked_at: Instant::now() })
    }

    fn current(&mut self) -> io::Result<&mut File> {
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.look()?;
        }
        Ok(&mut self.file)
    }

    fn look(&mut self) -> io::Result<()> {
        self.looked_at = Instant::now();
        let ours = self.file.metadata()?;
        let there = std::fs::metadata(&self.path);
        let is_ours =
            |there: &std::fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
        if !there.as_ref().is_ok_and(is_ours) {
            self.file = open(&self.path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const SOON: Duration = Duration::from_secs(20);

    /// A reader that takes a line only when it is told to.
    struct Blocked {
        entered: Sender<()>,
        go_on: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Blocked {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.entered.send(()).unwrap();
            self.go_on.recv().unwrap();
            self.written.send(line.to_vec()).unwrap();
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// R14.
    #[test]
    fn a_reader_that_stopped_costs_lines_and_makes_nobody_wait() {
        let (entered, is_entered) = channel();
        let (go, go_on) = channel();
        let (written, lines) = channel();
        let sink = Sink::to(Blocked { entered, go_on, written }).unwrap();
        let line = vec![b'x'; 1 << 10];
        sink.make_writer().write_all(&line).unwrap();
        is_entered.recv_timeout(SOON).unwrap();
        // The thread hangs in a write from here on.
        let fits = WAITING_BYTES_MAX / line.len();
        for _ in 1..fits + 10 {
            sink.make_writer().write_all(&line).unwrap();
        }
        assert_eq!(sink.lost(), 10);
        assert!(!sink.finish(Duration::from_millis(1)));
        for _ in 0..fits {
            go.send(()).unwrap();
        }
        assert!(sink.finish(SOON));
        assert_eq!(lines.try_iter().count(), fits);
        assert_eq!(sink.lost(), 10);
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// R14.
    #[test]
    fn what_a_closed_pipe_does_not_take_is_counted() {
        let sink = Sink::to(Closed).unwrap();
        sink.make_writer().write_all(b"one\n").unwrap();
        sink.make_writer().write_all(b"two\n").unwrap();
        assert!(sink.finish(SOON));
        assert_eq!(sink.lost(), 2);
    }

    /// Takes as much as there is room for, like a disk.
    struct Disk {
        free: Vec<usize>,
        taken: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let fits = self.free.pop().unwrap_or(usize::MAX).min(line.len());
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.extend(&line[..fits]);
            Ok(fits)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// R14.
    #[test]
    fn behind_a_line_that_a_full_disk_cut_the_next_one_is_whole() {
        let mut disk = Disk { free: vec![0, 0, 0, 2, 9], taken: Vec::new() };
        let mut is_torn = false;
        let mut write = |line: &str| write_line(&mut disk, line.as_bytes(), &mut is_torn).is_ok();
        let taken = ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n"].map(&mut write);
        assert_eq!(taken, [true, false, false, false, true, true]);
        assert_eq!(disk.taken, b"one\ntw\nfive\nsix\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("security.log"), folder.path().join("old"));
        let mut file = Reopened::open(&path).unwrap();
        let write = |file: &mut Reopened, line| file.current().unwrap().write_all(line).unwrap();
        write(&mut file, b"one\n");
        std::fs::rename(&path, &moved).unwrap();
        write(&mut file, b"two\n");
        file.look().unwrap();
        write(&mut file, b"three\n");
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
