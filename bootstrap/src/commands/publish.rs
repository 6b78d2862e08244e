//! `roomkeeper publish`; needs the client, which comes with a later step.
