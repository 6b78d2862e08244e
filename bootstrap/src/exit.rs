//! How the process ends, as its caller sees it.
//!
//! The numbers are those of `sysexits.h` where it has one; no command may end with another.

use std::io;
use std::process::ExitCode;

/// Why the process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// All went well.
    Success,
    /// Something failed while running.
    Failure,
    /// The command line is not one.
    Usage,
    /// The address is in use, or another fault of input or output at the start.
    Io,
    /// The system does not permit it.
    Permission,
    /// The settings are wrong.
    Settings,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Success, Self::Failure, Self::Usage, Self::Io, Self::Permission, Self::Settings];

    /// The number that the caller sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Io => 74,
            Self::Permission => 77,
            Self::Settings => 78,
        }
    }

    /// What a fault of input or output at the start means, like that of `bind`.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Permission } else { Self::Io }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C04.
    #[test]
    fn a_port_in_use_and_a_port_that_is_not_permitted_end_differently() {
        let of = |kind: io::ErrorKind| Exit::of_io(&io::Error::from(kind)).number();
        assert_eq!(of(io::ErrorKind::AddrInUse), 74);
        assert_eq!(of(io::ErrorKind::PermissionDenied), 77);
    }
}
