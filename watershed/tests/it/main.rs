//! What the whole does, from outside: the crates' edges, the command line, the library.

mod cli;

mod engine;

mod oracle;

mod workspace;
