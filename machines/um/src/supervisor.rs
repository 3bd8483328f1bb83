//! The event loop.

/// What the supervisor waits for.
pub(crate) enum Phase<'m> {
    /// Nothing special.
    Run,
    /// The host's execve into this image.
    Exec(Box<crate::engine::Image<'m>>),
}
