//! Certificates between operator, gateway and pods: one authority, and an identity for each party that it signs for.
//! The leader makes, renews and replaces them as Secrets; every replica reads its own and swaps it while it runs.

mod authorities;
mod authority;
mod issue;
mod keep;
mod renewal;
mod rotate;
mod rotation;
mod secret;
#[cfg(test)]
mod store;

pub use authorities::Authorities;
pub use authority::{Authority, AuthorityError, Pair};
pub use issue::{IssueError, Issuer};
pub use keep::{Kept, keep};
pub use rotate::{RotationArgs, look_after};
