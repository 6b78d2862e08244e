//! Many commands that may be done again, as few calls.
//!
//! Each lies where its first key does; their order holds between those of one server only.

use redis::{Cmd, Pipeline, Value};

/// A command, and whether somebody wants its answer.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) command: Cmd,
    pub(crate) is_asked: bool,
}

/// Commands in their order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) steps: Vec<Step>,
}

impl Batch {
    /// Adds one whose answer is of interest.
    pub(crate) fn ask(&mut self, command: Cmd) {
        self.steps.push(Step { command, is_asked: true });
    }

    /// Adds one that has only to be done.
    pub(crate) fn tell(&mut self, command: Cmd) {
        self.steps.push(Step { command, is_asked: false });
    }
}

/// Some of them as one pipeline, which answers each with a value or an error.
pub(crate) fn pipeline(steps: &[Step], places: &[usize]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(places.len());
    for place in places {
        pipeline.add_command(steps[*place].command.clone());
    }
    pipeline.ignore_errors();
    pipeline
}

/// The error among the answers, if there is one.
pub(crate) fn error_of(answer: &Value) -> Option<redis::RedisError> {
    match answer {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}
