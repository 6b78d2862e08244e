//! What the codec promises to its callers, tested through its public interface only.
//!
//! It must never reach for a socket, a clock or the crate's private parts.

#[cfg(test)]
mod support;

#[cfg(test)]
mod events;
#[cfg(test)]
mod violations;

#[cfg(test)]
mod closing;
#[cfg(test)]
mod frames_out;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod splits;
#[cfg(test)]
mod text_validity;
