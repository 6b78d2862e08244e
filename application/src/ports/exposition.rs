//! What is shown to whoever scrapes a node.

use std::fmt::Debug;

/// Renders what is known about the node, for a monitoring system. Cold: once per scrape.
pub trait Exposition: Debug + Send + Sync {
    /// The media type of the text.
    fn content_type(&self) -> &'static str;

    /// The text. May read files and is called where waiting is allowed. MUST stay below a
    /// mebibyte, and MUST NOT hold anything that a client wrote.
    fn render(&self) -> String;
}
